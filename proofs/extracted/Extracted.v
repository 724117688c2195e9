(* Extracted.v -- the decoder and its caches as OCaml: proofs/extracted/run.py compiles them. *)
From Coq Require Import Extraction ExtrOcamlBasic ExtrOCamlFloats.
From Minikv Require Import Markov Truncate Decoder Caches Calm.
Extraction Language OCaml.
Extraction "decoder.ml" loops logits trace build weight norm_weight narrow exp sin cos
  decode_full decode_residual decode_scheduled calm.
