"""What a person sees of a run: metrics, TensorBoard, and the terminal."""
