"""What somebody who read a study's results wrote about them, by the name of its page; nothing before there are any."""

from __future__ import annotations

FINDINGS = {
    "pilot": """Three seeds or more of the two controls, of Knowledge Evolution in 5 generations, of restarts and of
later-layer forgetting (LLF), one of the rest: a pilot, and no claim.

- **Evolving with KELS did not pay.** In 5 generations the dense network ends 1.0 ± 2.6 points below plain training of
  the same length, and the slim network 0.5 ± 2.6 points below one of its size from scratch, which costs a quarter of
  the training. The same restarts without a redraw end 0.6 ± 1.5 points below plain training: the redraw itself neither
  helped nor harmed the dense network much.
- **LLF did:** 3.0 ± 2.9 points above plain training of the same length, at each of the three seeds by 2.3 or more, and
  better in loss.
- **The number of redraws makes slim and dense one function**, not the number of epochs: after 3 generations of 66
  epochs the slim network is 16 points behind its dense one, after 5 of 40 it is 1 point behind.
- **LLF inside KELS** has a dense network as good as plain training, but a slim network of 27 %: what a redraw takes
  from its late layers does not come back in 40 epochs.

What follows: LLF with more seeds, LLF in a network of the slim size (see [Better generations](better.md)), and the
other settings in which redrawing is said to help most.""",
    "better": """Not finished: most arms are still to come.

A network of the slim network's size that is trained by later-layer forgetting (slim-llf-5) beats the same network
trained plainly, at equal epochs and equal training operations: by 2.3 ± 0.6 points over five seeds, better in loss and
equal in calibration. Over the three seeds that the dense long baseline has, it cannot be told from it (+1.1 ± 4.1), at
0.28 of its operations. The training of Knowledge Evolution's own slim network costs 3.7 times as much, and that network
ends at 41.1. Pruning and distillation, the other two controls of its size, have not been trained yet.""",
}
