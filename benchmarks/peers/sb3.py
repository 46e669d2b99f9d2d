"""Stable-Baselines3 on Pong with rl-zoo3 settings: `python sb3.py a2c|ppo SECONDS` prints env steps a second."""

import sys
import time

import ale_py
import gymnasium
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_atari_env
from stable_baselines3.common.vec_env import VecFrameStack

WARM_UP_SECONDS = 15.0


class Stopwatch(BaseCallback):
    """Counts env steps from the end of the warm-up on, by whole updates."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds, self.marks = seconds, []

    def _on_step(self) -> bool:
        return True

    def _on_rollout_start(self) -> None:
        self.marks.append((time.perf_counter(), self.num_timesteps))
        if self.marks[-1][0] - self.marks[0][0] > WARM_UP_SECONDS + self.seconds:
            counted = [mark for mark in self.marks if mark[0] - self.marks[0][0] > WARM_UP_SECONDS]
            (begin, first), (end, last) = counted[0], counted[-1]
            print("SPS", (last - first) / (end - begin))
            sys.exit()


gymnasium.register_envs(ale_py)
algorithm, seconds = sys.argv[1], float(sys.argv[2])
if algorithm == "a2c":
    env = VecFrameStack(make_atari_env("PongNoFrameskip-v4", n_envs=16, seed=1), n_stack=4)
    model = A2C("CnnPolicy", env, ent_coef=0.01, vf_coef=0.25, policy_kwargs={"optimizer_kwargs": {"eps": 1e-5}})
else:
    env = VecFrameStack(make_atari_env("PongNoFrameskip-v4", n_envs=8, seed=1), n_stack=4)
    model = PPO(
        "CnnPolicy", env, n_steps=128, n_epochs=4, batch_size=256, learning_rate=2.5e-4, clip_range=0.1, ent_coef=0.01
    )
model.learn(10**9, callback=Stopwatch(seconds))
