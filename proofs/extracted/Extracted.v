(* Extracted.v -- the decoder and its caches as OCaml: proofs/extracted/run.py compiles them. *)
From Coq Require Import Extraction ExtrOcamlBasic ExtrOCamlFloats.
From Minikv Require Import Markov Decoder Caches.
Extraction Language OCaml.
Extraction "decoder.ml" loops logits decode_cached trace build weight norm_weight narrow exp sin cos
  decode_residual decode_scheduled.
