# Run inside the image (make image-check): everything that people use it for, in a minute. Fails if anything does.
set -e
asyncq doctor
asyncq train --env CartPole-v1 --processes 2 --target-return 490 --total-steps 500000 --run-dir runs/check --quiet
asyncq evaluate runs/check/best.h5 --episodes 30 --json >runs/check/evaluation.json
python -c 'import json; mean = json.load(open("runs/check/evaluation.json"))["mean"]; print("CartPole-v1:", mean); assert mean >= 475'
asyncq play runs/check/best.h5 --record runs/check/cartpole.mp4
test -s runs/check/cartpole.mp4
