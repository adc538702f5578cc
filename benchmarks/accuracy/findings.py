"""What somebody who read a study's results wrote about them, by the name of its page; nothing before there are any."""

from __future__ import annotations

ONE_RATE = """Every arm has the
learning rate that is best for plain training on Flowers-102, 0.128. Evolving, restarts and forgetting in the dense
network were best at half of it there, so that what they miss here may be the rate's."""

FINDINGS = {
    "pilot": """Five seeds of the two controls, of later-layer forgetting (LLF) and of Knowledge Evolution in 5
generations, three of the rest: of those, a pilot and no claim.

- **Evolving with KELS brought nothing that can be told.** After 5 generations the dense network's mean is below that
  of plain training of the same length (-0.88 ± 0.95), and the slim network's below that of one of its size from
  scratch (-0.2 ± 1.1), which costs about a quarter of the training; both intervals hold 0. The same restarts without a
  redraw (-0.6 ± 1.5 to plain training) are not told apart from evolving (-0.4 ± 1.3, evolving to restarts): what the
  redraw itself does to the dense network is not to be seen. Nor do more redraws help it: after 10 generations it is at
  -1.8 ± 1.7 to plain training, after 3 at -0.4 ± 1.7.
- **LLF did:** 2.9 ± 1.1 points above plain training of the same length and cost, at the five seeds by 2.3 to 4.4, and
  better in loss. Its calibration is worse than plain training's (ECE 8.3 beside 5.3), as is that of every dense network
  here that restarts: 7.3 without a redraw, 8.4 in 5 generations of KELS.
- The number of redraws seems to bring the slim network up to the dense one, not the number of epochs: after 3
  generations of 66 epochs it is 15 points behind, after 5 of 40 1, after 10 of 20 less than 1. The learning rate
  has a part in it: it was chosen by the dense network, and at twice as much, at one seed, the slim network of three
  generations is 7 behind. Most of the distance is the dense network's BatchNorm statistics, which suit the slim one
  ill (see [its statistics](norms.md)).
- **LLF inside KELS** has a dense network that is not told apart from plain training (+1.1 ± 3.4), and a slim network
  of 27 %: what a redraw takes from its late layers does not come back in 40 epochs.

What follows: LLF in a network of the slim size (see [Better generations](better.md)), and the other settings in which
redrawing is said to help most.""",
    "losses": """Not finished: nothing has been trained with other losses yet. The new arms have one seed each, and two
runs that differ by less than two points are not told apart.

- **What is redrawn:** another random half of the weights each generation ends at 44.9 (random-5), a fixed random half
  (wels-5) at 43.1, half of the channels (ke-5) at 41.9, and nothing but restarts at 42.9, beside plain training's 43.8
  at that seed. Of all that redraws here, only forgetting late layers (llf-5) is above plain training at five seeds.
- **The slim network with statistics of its own:** 43.2 (ke-reestimated), its dense network 42.5; with the dense
  network's statistics 40.3 at that seed (ke-5; 41.3 ± 0.5 at five), from scratch 41.5. On the very same weights a new
  estimate was worth 1.8 points on validation ([its statistics](norms.md)). So the published way to score the fit
  hypothesis says too little of it; by how much, further seeds have to say. Plain training of a network of that size for
  as many operations has 45.3 at that seed (slim-scratch-equal in [Better generations](better.md)).""",
    "better": """Not finished: more arms are to come. What stands has five seeds where a number is in bold.

- **Forgetting in a narrow network, for as long as the dense one's operations pay, beats every control.** A network of
  the slim size that redraws its last block and its classifier four times in 740 epochs (slim-llf-equal) reaches 47.7
  ± 1.0, at the training operations of the dense network's 200 epochs and 0.28 of its operations afterwards. That is
  2.9 ± 1.2 points more than the best control of its size, the same network trained plainly for as many operations
  (slim-scratch-equal), at the five seeds by 1.4 to 3.6; 4.1 ± 1.2 more than the distilled one, which costs 1.6 times
  as much; 4.6 ± 2.5 more than the pruned one; 4.5 ± 1.4 more than the dense long baseline; and 1.6 ± 1.1 more than the
  dense network that forgets (llf-5).
- How far that can be believed: the intervals of the five controls stay above 0 when they are widened for five
  comparisons (Bonferroni; 2.9 ± 1.9, 4.1 ± 2.0, 4.6 ± 4.1, 4.5 ± 2.3, and 6.2 ± 1.9 to slim-scratch), that of llf-5
  does not. Learning rates were chosen at seed 0; without it the differences are, in the order above, 2.8 ± 1.6,
  3.9 ± 1.6, 4.3 ± 3.3, 4.4 ± 1.9 and 1.4 ± 1.2. Both long trainings have slim-scratch's learning rate, which is the
  best one for 200 epochs; none was looked for at 740.
- **Patience pays.** Plain training of the slim network for 741 epochs brings 3.3 ± 0.9 points over 200. By its mean it
  is the best control, though not told apart from the distilled (+1.2 ± 2.1) and the pruned network (+1.7 ± 3.0), and
  of all with five seeds it is the best calibrated (ECE 2.6 %). So 200 epochs are too few for it, and comparisons at
  equal epochs (slim-llf-5 to slim-scratch, say) are partly ones of speed. Whether 741 are enough was not asked.
- **At equal epochs** forgetting gains 2.9 ± 1.1 in the dense network (llf-5 to long) and 2.3 ± 0.6 in the narrow one
  (slim-llf-5 to slim-scratch), at no more training operations.
- **Forgetting makes a better teacher.** Taught by the dense network that forgets, the narrow one reaches 46.4 ± 0.5
  (distilled-llf), 2.9 ± 1.1 more than the long baseline teaches it at the same cost; to forget, too, adds nothing
  that can be told (slim-llf-taught, 46.3 ± 0.6, difference -0.1 ± 1.2). Both cost 1.6 times the training operations of
  slim-llf-equal, which is 1.3 ± 0.8 points above the second and cannot be told from the first (+1.2 ± 1.4).
- It is the redraw, not the restarts, as far as one seed says: slim-llf-equal's restarts without its redraw end at
  44.6 (slim-restarts-equal), plain training at 45.3, forgetting at 48.8.
- Knowledge Evolution's own slim network ends at 41.3 ± 0.5, not told apart from one from scratch (-0.2 ± 1.1), and
  costs 3.7 times the training.
- What was put on top of evolving has one seed, and nothing of it is a point above plain training of its size (43.8
  dense and 41.5 slim at that seed; ke-5 41.9 and 40.3). A moving average of the weights: 42.8 and 40.9, and 44.1 and
  41.2 with plain training. The last generation as the teacher: 42.5 and 41.6. Values redrawn 2.4 times as wide leave
  the dense network where it was (41.7) and cost the slim one three points (37.0). Forgetting inside of KELS has the
  dense network at 43.8, and taught by the last generation at 44.4; the slim one is far behind, and the teacher brings
  it from 27.3 to 35.0 only. What the last generation teaches is the worst calibrated of all (ECE 13 % to 18 %). Few
  long generations (ke-2, two of 100 epochs) have the dense network at 44.2, and after their one redraw a slim one that
  has hardly begun (8.5).
- Calibration is the price of accuracy at equal operations: forgetting has an ECE of 8.3 % beside 5.3 % in the dense
  network (most of it seems to come of the restarts, see [Pilot](pilot.md)), and of 6.1 % beside 2.6 % in the narrow
  one. In the narrow one at equal epochs it costs nothing that can be told (8.5 % beside 8.3 %). The loss is lower in
  all three.

Not asked yet: more seeds of the restarts, the dense network trained for longer, other data, other networks. The slim
network has 28.1 % of the dense one's operations here, a little more than the 27 % that r = 0.5 leaves of an ordinary
ResNet18.""",
    "cheaper": """One seed where no interval stands: a screening of ideas, in which what is within two points says
nothing.

- **A third of the training operations is enough for what five generations of Knowledge Evolution reach.**
  The slim network alone for 95 % of each of five generations, its last block and its classifier redrawn, and the
  dense one only at their ends (llf-slim-first-third): 43.9 ± 1.2 dense and 44.0 ± 1.3 slim, beside 42.3 ± 0.3 and
  41.3 ± 0.5 of five whole generations of KELS (ke-5), which cost three times as much. The slim network is 2.7 ± 1.7
  points above theirs; of the dense one (+1.6 ± 1.6) no more is said than that it is not below it. With KELS alone
  (ke-slim-first-third, one seed) both are at 41.6.
- **Nothing is gained by growing back, though.** Slim and dense are one function when the dense network goes on, and
  its few epochs at the end of a cosine hardly change it. A small network that forgets and is never grown (slim-llf-5,
  43.8 ± 0.8 at 0.27 of the operations) cannot be told from either (-0.1 ± 1.9, -0.2 ± 1.9); it beats both networks of
  ke-5 (+1.5 ± 1.2, +2.5 ± 1.4; without seed 0, at which learning rates were chosen, +1.4 ± 1.7 and +2.2 ± 1.6: the
  second is the surer one). Whoever needs the dense network at its best pays for it: llf-5 has 46.0 ± 0.3.
- Half of the training (ke-slim-first-5, 0.49 x): 42.9 and 42.6, with slim and dense at one level from the third
  generation on.
- Shorter generations do not do it. At a third of the length everything falls by 4 to 11 points, and evolving and
  forgetting fall below plain training (long-third 39.1, llf-third 36.5, ke-third 35.8): there is nothing to forget
  yet.
- Lengths that shrink (four generations) and a plateau (three) keep the dense network (42.7, 42.3; ke-5 has 41.9 at
  this seed); of the slim one they leave 39.4 and 25.8 (ke-5: 40.3). It seems to need the number of redraws. Small
  images first keep the dense one and cost the slim one, too (42.3 and 36.3 at 0.56 x).
- One cosine over all generations, at the price of all of them, has the slim network 0.3 below its dense one (42.6,
  42.3).
- One generation in whose last third both networks learn together (slimmable-1): 42.6 and 41.3, about what five
  generations of KELS have, for 1.09 x; at a third of the length 38.3 and 35.5.
- Five seeds of ke-5, by now, are told apart neither from plain training in the dense network (-0.88 ± 0.95) nor from
  that of the slim size in the slim one (-0.2 ± 1.1).""",
    "few-images": f"""One seed: a screening, in which what is within one or two points says nothing. {ONE_RATE}

- Knowledge Evolution ends below plain training in the dense network (28.9 beside 30.3), its slim network below one from
  scratch (28.9 beside 29.4), as with ten images a class.
- Forgetting is ahead again at each length and size, by no more than says nothing: by 1.4 points in the dense network
  (llf-5 to long), by 1.7 in the narrow one (slim-llf-5 to slim-scratch), by 1.3 at the dense network's operations
  (slim-llf-equal to slim-scratch-equal). At this seed it gains 2.3, 2.6 and 3.6 with twice as many images. That
  redrawing helps most where images are fewest is not to be seen.
- Patience pays here, too: 741 epochs bring the narrow network 3.2 points, to 32.6. Plain dense training has 30.3, the
  dense network that forgets 31.7, which is too near to say anything.""",
    "eurosat": f"""One seed, two of Knowledge Evolution, and a test split of 600 images: 1.8 points are the standard
error of one run, and what is within four points says nothing. {ONE_RATE}

- Nothing here is above plain training. The dense long baseline has 73.2, later-layer forgetting 72.8, restarts 73.2,
  Knowledge Evolution 71.5 and 71.0; the narrow network from scratch has the best figure of all, 74.5, after 200 epochs.
- Forgetting in the narrow network, which beats every control on Flowers-102, is behind on the test images, 71.2 and
  71.7 beside 74.5 and 73.5 without it, and ahead on the 200 validation images, 75.5 both times beside 73.5: not told
  apart. The slim network of Knowledge Evolution is 7 points behind one from scratch at one seed (67.2) and not at the
  other (74.3).
- Nor does the narrow network gain from 741 epochs here. Ten classes of 40 images each may leave less to overfit, and so
  to forget, than 102 of ten; that was not asked.""",
    "ablations": """One seed, two of the original and of one variant, and a test split of 600 images: what is within
four points says nothing, and chance will have lifted some of ten variants beside one original. Every arm has plain
training's learning rate.

- **A slim network's figure changes with the seed by more than with most of this**: the original's (ke-5) is 67.2 at
  seed 0 and 74.3 at seed 1, its dense network 71.5 and 71.0. Norms that start over with the weights they belong to
  (ke-norm-reset) have 73.5 and 74.5, dense 73.7 and 73.5. So what lies between 64.7 and 75.2 in the slim network, at
  seed 0 alone, is not told apart: ways to draw, what the optimizer keeps, one schedule over all generations.
- Two variants are further away than that. Going back to the very first values in each generation (ke-reset-rewind)
  leaves the slim network at 54.3, which is 21 points behind its own dense network, perhaps because it can count on a
  reset hypothesis that always comes back the same. A rate of 0.3 leaves it at 52.8, with an eighth of the operations.
- **The dense network hardly minds.** Nine of ten variants end between 72.3 and 75.3, plain training at 73.2: not told
  apart. Only fresh values from each parameter's own first mean and deviation (ke-reset-initial, 68.8) are more than
  four points below plain training on the test images; on validation they are where the original is.
- Set to zero in place of a draw, the reset hypothesis leaves the slim network at 75.2, beside 74.0 of its dense one and
  74.5 of one from scratch. What is trained then may be the narrow network in the main, at the dense one's cost; that
  was not looked at.
- No slim network can be told to be above one of its size from scratch, which costs a quarter of the training.""",
    "dogs-cats": f"""One seed, and a test split of 550 images: about two points are the standard error of one run, and
nine figures between 25 and 29 % are not told apart. {ONE_RATE}

- Knowledge Evolution has the highest test figures of all, dense (28.9) and slim (28.7), and among the lowest on
  validation; plain training has 26.5 dense and 26.9 narrow. A difference of two points is within what chance does.
- What forgetting and patience bring on Flowers-102 is not to be seen: 25.1 to 26.9 in every length and size.
- All are wrong three times in four and too sure of it (ECE 20 % and more). Evolving is the best calibrated and has the
  lowest loss, dense and slim (2.34 and 2.37 beside 2.52 for plain training): what to look at with more seeds.""",
    "noise20": f"""One seed: a screening, in which what is within one or two points says nothing. {ONE_RATE}

- Knowledge Evolution ends below plain training in the dense network (31.1 beside 32.0); its slim network at 31.3, one
  from scratch at 30.7.
- Forgetting is ahead at each length and size: by 2.8 points in the dense network (llf-5 to long), by 3.4 in the narrow
  one (slim-llf-5 to slim-scratch), by 1.9 at the dense network's operations (slim-llf-equal to slim-scratch-equal).
  With right labels it gains 2.3, 2.6 and 3.6 at this seed, about as much. Restarts without a redraw are where plain
  training is (32.2 and 32.0).
- With twice as many wrong labels ([noise40](noise40.md)) less is left of it.""",
    "noise40": f"""One seed: a screening, in which what is within one or two points says nothing. {ONE_RATE}

- Knowledge Evolution ends below plain training in the dense network (22.4 beside 22.9), its slim network below one from
  scratch (21.7 beside 22.1): that redrawing helps most where labels are wrong is not to be seen.
- Forgetting is ahead at equal epochs, by no more than says nothing: by 1.0 point in the dense network (llf-5 to long),
  by 1.6 in the narrow one (slim-llf-5 to slim-scratch); with right labels by 2.3 and 2.6 at this seed. At the dense
  network's operations it gains nothing (slim-llf-equal 23.1, slim-scratch-equal 23.4).
- Restarts without a redraw have the lowest figure, 21.4.""",
}
