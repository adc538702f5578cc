"""What somebody who read a study's results wrote about them, by the name of its page; nothing before there are any."""

from __future__ import annotations

FINDINGS = {
    "pilot": """Five seeds of the two controls and of later-layer forgetting (LLF), three of Knowledge Evolution in 5
generations and of restarts, one of the rest: of those, a pilot and no claim.

- **Evolving with KELS did not pay.** In 5 generations the dense network ends 1.0 ± 2.6 points below plain training of
  the same length, and the slim network 0.5 ± 2.6 points below one of its size from scratch, which costs a quarter of
  the training. The same restarts without a redraw end 0.6 ± 1.5 points below plain training: the redraw itself neither
  helped nor harmed the dense network much.
- **LLF did:** 2.9 ± 1.1 points above plain training of the same length and cost, at each of the five seeds by 2.3 or
  more, and better in loss; its calibration is worse (ECE 8.3 beside 5.3).
- **The number of redraws makes slim and dense one function**, not the number of epochs: after 3 generations of 66
  epochs the slim network is 16 points behind its dense one, after 5 of 40 and after 10 of 20 it is 1 point behind.
- **LLF inside KELS** has a dense network as good as plain training, but a slim network of 27 %: what a redraw takes
  from its late layers does not come back in 40 epochs.

What follows: LLF in a network of the slim size (see [Better generations](better.md)), and the other settings in which
redrawing is said to help most.""",
    "better": """Not finished: more arms are to come. What stands has five seeds where a number is in bold.

- **Forgetting makes the better teacher and the better pupil.** A network of the slim size that forgets its late layers
  and learns from a dense network that did so, too (slim-llf-taught) reaches 46.3 ± 0.6. It beats every control of its
  size that is trained for as many epochs: slim from scratch by 4.8 ± 0.5, the pruned long baseline by 3.3 ± 2.1, and
  the best one, which the long baseline taught, by 2.8 ± 1.1 at the same cost of training. It beats the dense long
  baseline, too, by 3.2 ± 1.3 at 0.28 of its operations (1.62 times its training operations, the teacher's included),
  and cannot be told from its own teacher (+0.3 ± 0.7).
- **The strongest control is patience, and against it nothing is shown yet.** The slim network trained plainly for 741
  epochs, as many operations as the dense network's 200 (slim-scratch-equal), reaches 45.3 at the one seed that there
  is: 3.8 points more than in 200 epochs, 1.4 more than the dense long baseline, and best calibrated of all.
  slim-llf-taught has 46.8 at that seed, for 1.6 times as many operations. 200 epochs of plain training are not enough
  for either size, so part of every gain here may be speed.
- **Without a teacher**, slim-llf-5 beats the same network trained plainly, at equal epochs and equal training
  operations, by 2.3 ± 0.6, and cannot be told from the distilled one (+0.3 ± 1.6), which costs six times as much to
  train, nor from the dense long baseline (+0.6 ± 1.6). With the teacher it gains 2.5 ± 0.9.
- **The dense network** gains 2.9 ± 1.1 by forgetting (llf-5), at no cost.
- Knowledge Evolution's own slim network ends at 41.1 ± 0.7 and costs 3.7 times the training of one from scratch.
- Calibration pays for it: the taught networks' ECE is 9 to 12 %, that of the long baseline 5 %. Their loss is lower.

Not asked yet: more seeds of slim-scratch-equal, forgetting for as long (slim-llf-equal), whether the teacher alone
would do it (distilled-llf), other data, other networks. The slim network has 28.0 % of the dense one's operations here,
a little more than the 27 % that r = 0.5 leaves of an ordinary ResNet18.""",
}
