"""How the named pipelines are trained: recipes that several of them share."""

from dataclasses import replace

from flowferry.configs.recipe import TrainConfig

SPEEDRUN = TrainConfig(  # chosen by measurement: docs/SPEEDRUN.md
    epochs=100,
    minutes=30.0,
    batch_size=64,
    optimizer="muon",
    lr=3e-3,
    schedule="linear",
    lr_final=0.0,
    warmup_steps=100,
)
FROM_IMAGES = replace(SPEEDRUN, loss="pseudo-huber", time_power=2.0, source_noise=0.4)
PICTURES = replace(FROM_IMAGES, epochs=1000, batch_size=32, start_share=0.5)  # chosen by measurement: docs/PAIRS.md
STUDENT = replace(FROM_IMAGES, epochs=1000, minutes=15.0, lr=1.5e-3, start_share=0.5, adversary=0.05)
COURSE = TrainConfig(epochs=10, batch_size=64, lr=1e-2, schedule="exponential", show_epochs=5)
COURSE_DDPM = TrainConfig(epochs=20, batch_size=128, lr=1e-3, schedule="exponential", show_epochs=5)
COURSE_DENOISER = TrainConfig(epochs=5, batch_size=256, lr=1e-4, show_epochs=5)
COLOR = TrainConfig(epochs=100, batch_size=128, lr=3e-4, warmup_steps=500, show_epochs=10)
SLOW = TrainConfig(epochs=100, batch_size=64, lr=3e-4, warmup_steps=200, show_epochs=10)
PLANE = TrainConfig(epochs=20, batch_size=256, lr=2e-3, schedule="cosine", lr_final=0.0, show_epochs=10)
