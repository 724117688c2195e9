(* Streams.v -- T5 and T11 once more, of what Markov.v leaves out: the streams that a replay goes
   through, and the K/V above layers with windows.  Rests on nothing. *)
From Coq Require Import List Lia.
From Minikv Require Import Markov.
Import ListNotations.

Section Decoder.
Context {Tok V KV : Type}.
Variable emb : nat -> Tok -> V.
Variable Ls : list (@layer V KV).

(* T5: from the checkpoint at layer l follows the stream at every layer above. *)
Theorem replay_streams l m toks : l <= m ->
  stream emb Ls m toks = run (skipn l (firstn m Ls)) (stream emb Ls l toks).
Proof.
  intros H. unfold stream, run. rewrite <- fold_left_app. f_equal.
  replace (firstn l Ls) with (firstn l (firstn m Ls)).
  - now rewrite firstn_skipn.
  - rewrite firstn_firstn. f_equal. lia.
Qed.

(* T11: what the stream does not reach, the K/V of the layer above do not reach either. *)
Theorem receptive_kv ws (ls : list (@layer V KV)) (L : @layer V KV) a : Forall2 windowed ws ls ->
  forall hs hs',
  agree_from a hs hs' -> agree_from (a + reach ws) (kvs L (run ls hs)) (kvs L (run ls hs')).
Proof.
  intros W hs hs' A. destruct (receptive_field ws ls a W hs hs' A) as [N H]. split.
  - unfold kvs. now rewrite !mapi_length.
  - intros p P. now rewrite !projection, H.
Qed.
End Decoder.

Print Assumptions replay_streams.
Print Assumptions receptive_kv.
