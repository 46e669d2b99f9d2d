"""PPO over envpool as CleanRL does it: `python envpool_ppo.py ENVS EPOCHS SECONDS` prints env steps a second on Pong.

One process: it steps the environments, which envpool runs on threads of its own, for 128 steps, then updates the Nature
network in 4 minibatches an epoch. CleanRL's settings are 8 environments and 4 epochs.
"""

import sys
import time

import envpool
import numpy as np
import torch
from torch import nn
from torch.distributions import Categorical

WARM_UP_SECONDS, STEPS, MINIBATCHES, GAMMA, LAMBDA, CLIP = 15.0, 128, 4, 0.99, 0.95, 0.1
ENVS, EPOCHS, SECONDS = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])


class Agent(nn.Module):
    def __init__(self, actions: int) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            nn.Conv2d(4, 32, 8, 4), nn.ReLU(), nn.Conv2d(32, 64, 4, 2), nn.ReLU(), nn.Conv2d(64, 64, 3), nn.ReLU(),
            nn.Flatten(), nn.Linear(3136, 512), nn.ReLU(),
        )  # fmt: skip
        self.actor, self.critic = nn.Linear(512, actions), nn.Linear(512, 1)

    def forward(self, observations: torch.Tensor) -> tuple[Categorical, torch.Tensor]:
        hidden = self.trunk(observations / 255.0)
        return Categorical(logits=self.actor(hidden)), self.critic(hidden).squeeze(-1)


env = envpool.make("Pong-v5", env_type="gymnasium", num_envs=ENVS, episodic_life=True, reward_clip=True, seed=1)
agent = Agent(env.action_space.n)
optimizer = torch.optim.Adam(agent.parameters(), lr=2.5e-4, eps=1e-5)
observations = torch.zeros((STEPS, ENVS, *env.observation_space.shape))
actions = torch.zeros((STEPS, ENVS), dtype=torch.long)
log_probs, rewards, dones, values, advantages = (torch.zeros((STEPS, ENVS)) for _ in range(5))
observation, done = torch.Tensor(env.reset()[0]), torch.zeros(ENVS)
marks = []
while not marks or marks[-1][0] - marks[0][0] < WARM_UP_SECONDS + SECONDS:
    marks.append((time.perf_counter(), len(marks) * STEPS * ENVS))
    for t in range(STEPS):
        observations[t], dones[t] = observation, done
        with torch.no_grad():
            policy, values[t] = agent(observation)
        actions[t] = policy.sample()
        log_probs[t] = policy.log_prob(actions[t])
        following, reward, terminated, truncated, _ = env.step(actions[t].numpy())
        rewards[t], observation = torch.Tensor(reward), torch.Tensor(following)
        done = torch.Tensor(np.logical_or(terminated, truncated))
    with torch.no_grad():
        next_value, next_done, trace = agent(observation)[1], done, torch.zeros(ENVS)
        for t in reversed(range(STEPS)):
            delta = rewards[t] + GAMMA * (1 - next_done) * next_value - values[t]
            advantages[t] = trace = delta + GAMMA * LAMBDA * (1 - next_done) * trace
            next_value, next_done = values[t], dones[t]
    flat = [tensor.flatten(0, 1) for tensor in (observations, actions, log_probs, advantages, advantages + values)]
    for _ in range(EPOCHS):
        for rows in torch.randperm(STEPS * ENVS).chunk(MINIBATCHES):
            seen, acted, before, gained, returned = (tensor[rows] for tensor in flat)
            gained = (gained - gained.mean()) / (gained.std() + 1e-8)
            policy, value = agent(seen)
            ratio = (policy.log_prob(acted) - before).exp()
            gain = torch.min(ratio * gained, ratio.clamp(1 - CLIP, 1 + CLIP) * gained).mean()
            loss = 0.5 * (value - returned).square().mean() - gain - 0.01 * policy.entropy().mean()
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(agent.parameters(), 0.5)
            optimizer.step()
counted = [mark for mark in marks if mark[0] - marks[0][0] > WARM_UP_SECONDS]
print("SPS", (counted[-1][1] - counted[0][1]) / (counted[-1][0] - counted[0][0]))
