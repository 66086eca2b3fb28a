"""What a report explains beside its pictures and figures, by the pipeline's name."""

BESIDE = {  # which run is shown beside
    "fashion2mnist": "fashion2mnist-published",
    "noise2mnist-cfg-constant": "noise2mnist-cfg-published",
    "noise2mnist-wide": "noise2mnist-published",
}

NOTES = {
    "denoise-noise": """\
The network sees noise that was drawn independently of the digit it is scored against, so the noise tells it nothing of
that digit. Whatever it answers, the expected squared error is E‖D(z) − x‖² = ‖D(z) − E[x]‖² + E‖x − E[x]‖²: the second
term is the same for every network, and the first vanishes for the constant answer E[x], the mean of all training
images. That is what the sheets show, and the table says how near it comes: the outputs differ from the mean image and
from each other by far less than any digit does. One step from noise therefore cannot give a digit; many steps can,
because after the first small one the input is no longer independent of where the path leads.""",
    "noise2mnist-cfg-constant": """\
A schedule lowers the learning rate so that the weights stop jumping about their optimum. A constant rate gets the same
in two other ways: it is half the scheduled one's first rate, so that the jumps are smaller, and what is shown is an
exponential moving average of the weights, in which the jumps of the last thousand steps cancel. The evidence is in the
two held-out losses above: what the average takes off the loss of the last step's weights, under either rate.""",
    "gaussian2d": """\
x0 and x1 are independent with variance 1 in each coordinate, so that x_t = α·x0 + β·x1 has variance α² + β². On the
linear path that is (1 − t)² + t², which dips to ½ at t = ½; on the cosine path it is cos² + sin² = 1 throughout. The
mean moves from 0 to 1 as β does, on either. The dotted line is the variance of what the trained network carries.""",
    "noise2mnist-wide": """\
The published rate is 5e-2. In a short trial at D = 32 it trained worse than the narrower model's 1e-2, which this
pipeline therefore uses; `--train.lr 5e-2` is the published one.""",
}
