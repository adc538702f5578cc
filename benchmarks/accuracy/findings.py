"""What somebody who read a study's results wrote about them, by the name of its page; nothing before there are any."""

from __future__ import annotations

FINDINGS = {
    "pilot": """Five seeds of the two controls and of later-layer forgetting (LLF), three of Knowledge Evolution in 5
generations and of restarts, one of the rest: of those, a pilot and no claim.

- **Evolving with KELS is not told to pay.** In 5 generations the dense network ends 1.0 ± 2.6 points below plain
  training of the same length, and the slim network 0.5 ± 2.6 points below one of its size from scratch, which costs
  about a quarter of the training. The same restarts without a redraw end 0.6 ± 1.5 points below plain training: the
  redraw itself neither helped nor harmed the dense network much.
- **LLF did:** 2.9 ± 1.1 points above plain training of the same length and cost, at each of the five seeds by 2.3 or
  more, and better in loss; its calibration is worse (ECE 8.3 beside 5.3).
- The number of redraws seems to bring the slim network up to the dense one, not the number of epochs: after 3
  generations of 66 epochs it is 16 points behind, after 10 of 20 1 point (one seed each), as after 5 of 40 (three).
- **LLF inside KELS** has a dense network as good as plain training, but a slim network of 27 %: what a redraw takes
  from its late layers does not come back in 40 epochs.

What follows: LLF in a network of the slim size (see [Better generations](better.md)), and the other settings in which
redrawing is said to help most.""",
    "better": """Not finished: more arms are to come. What stands has five seeds where a number is in bold.

- **Forgetting in a narrow network, for as long as the dense one's operations pay, beats every control.** A network of
  the slim size that redraws its last block and its classifier four times in 740 epochs (slim-llf-equal) reaches 47.7
  ± 1.0, at the training operations of the dense network's 200 epochs and 0.28 of its operations afterwards. That is
  2.9 ± 1.2 points more than the best control of its size, the same network trained plainly for as many operations
  (slim-scratch-equal), which it beats at each of the five seeds by 1.4 or more; 4.1 ± 1.2 more than the distilled
  one, which costs 1.6 times as much; 4.6 ± 2.5 more than the pruned one; 4.5 ± 1.4 more than the dense long baseline;
  and 1.6 ± 1.1 more than the dense network that forgets (llf-5).
- **Patience pays.** Plain training of the slim network for 741 epochs brings 3.3 ± 0.9 points over 200. By its mean it
  is the best control, though not told apart from the distilled (+1.2 ± 2.1) and the pruned network (+1.7 ± 3.0), and
  of all with five seeds it is the best calibrated (ECE 2.6 %). So 200 epochs are too few for it, and comparisons at
  equal epochs (slim-llf-5 to slim-scratch, say) are partly ones of speed. The comparison at equal operations is not.
- **At equal epochs** forgetting gains 2.9 ± 1.1 in the dense network (llf-5 to long) and 2.3 ± 0.6 in the narrow one
  (slim-llf-5 to slim-scratch), at no more training operations.
- **Forgetting makes a better teacher.** Taught by the dense network that forgets, the narrow one reaches 46.4 ± 0.5
  (distilled-llf), 2.9 ± 1.1 more than the long baseline teaches it at the same cost; to forget, too, adds nothing
  then (slim-llf-taught, 46.3 ± 0.6, difference -0.1 ± 1.2). Both cost 1.6 times the training operations of
  slim-llf-equal, which is 1.3 ± 0.8 points above the second and cannot be told from the first (+1.2 ± 1.4).
- It is the redraw, not the restarts, as far as one seed says: slim-llf-equal's restarts without its redraw end at
  44.6 (slim-restarts-equal), plain training at 45.3, forgetting at 48.8.
- Knowledge Evolution's own slim network ends at 41.1 ± 0.7 and costs 3.7 times the training of one from scratch.
- Calibration is the price: forgetting has an ECE of 8.3 % beside 5.3 % in the dense network, and of 6.1 % beside 2.6 %
  in the narrow one at equal operations. The loss is lower in both.

Not asked yet: more seeds of the restarts, the dense network trained for longer, other data, other networks. The slim
network has 28.1 % of the dense one's operations here, a little more than the 27 % that r = 0.5 leaves of an ordinary
ResNet18.""",
}
