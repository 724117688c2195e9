(* Concrete.v -- T1 to T5, T8, T10, T11 and A3 to A5 for the decoder of Decoder.v, on any machine:
   instances of Markov.v and of what follows from it, of which nothing is left to assume.  Beside
   Coq's primitive floats, whose type and operations are named in the decoder, they rest on
   nothing. *)
From Coq Require Import List Lia PeanoNat PrimFloat.
From Minikv Require Import Markov Speculation Reuse Spans Decoder.
Import ListNotations.

(* T1 *)
Theorem concrete_projection M c b hs p :
  nth_error (kvs (layer_of M c b) hs) p = option_map (kv_from_residual M c b p) (nth_error hs p).
Proof. exact (projection (layer_of M c b) hs p). Qed.

(* T2 *)
Theorem concrete_markov M m l tokens1 tokens2 :
  stream (embed m) (layers M m) l tokens1 = stream (embed m) (layers M m) l tokens2 ->
  logits M m tokens1 = logits M m tokens2.
Proof. apply markov. Qed.

(* T3 *)
Theorem concrete_decode_is_forward M m chunks :
  fst (decode_cached M m chunks) = logits M m (concat chunks).
Proof. unfold decode_cached. now rewrite decode_is_forward. Qed.

(* T4 *)
Theorem concrete_any_eviction M m policy chunks :
  snd (fst (decode_ev (embed m) (unembed M m) (layers M m) policy chunks))
  = logits M m (concat chunks).
Proof. apply any_eviction_is_exact. Qed.

(* T5 *)
Theorem concrete_replay M m l tokens :
  map (unembed M m) (run (skipn l (layers M m)) (stream (embed m) (layers M m) l tokens))
  = logits M m tokens.
Proof. now apply replay. Qed.

(* T6: the decoder takes its rows one at a time, so there is nothing to prove: row p of a layer is
   the layer's function of row p and of the K/V before it. *)
Theorem concrete_rows M c b hs p :
  nth_error (fwd (layer_of M c b) hs) p
  = option_map (fun h => block_rest M c b p h (firstn (S p) (kvs (layer_of M c b) hs)))
      (nth_error hs p).
Proof. apply mapi_nth. Qed.

(* T8 *)
Theorem concrete_causal M m tokens n : firstn n (logits M m tokens) = logits M m (firstn n tokens).
Proof.
  destruct (layers M m) as [|L ?] eqn:E.
  - unfold logits, outputs. rewrite E. simpl. now rewrite firstn_map, mapi_firstn.
  - now apply (causal (embed m) (unembed M m) (layers M m) 0 L).
Qed.

(* T10 *)
Theorem concrete_layer0 M m b tokens p :
  nth_error (kvs (layer_of M (conf m) b) (stream (embed m) (layers M m) 0 tokens)) p
  = option_map (fun t => kv_from_residual M (conf m) b p (embed m p t)) (nth_error tokens p).
Proof. apply (layer0_kv (embed m) (layers M m) (layer_of M (conf m) b)). Qed.

(* T11 *)
Lemma concrete_windowed M c b w : window b = Some w -> windowed w (layer_of M c b).
Proof.
  intros W p h ks ks' N H. simpl. unfold block_rest, block_activations. rewrite W. unfold visible.
  replace (skipn (length ks' - w) ks') with (skipn (length ks - w) ks); [reflexivity|].
  rewrite <- N. apply same_list. intros s. rewrite !nth_skipn. apply H. lia.
Qed.
Theorem concrete_receptive_field M c ws bs a : Forall2 (fun w b => window b = Some w) ws bs ->
  forall hs hs', agree_from a hs hs' ->
  agree_from (a + reach ws) (run (map (layer_of M c) bs) hs) (run (map (layer_of M c) bs) hs').
Proof.
  intros W. apply receptive_field. induction W; simpl; constructor; auto using concrete_windowed.
Qed.

(* A3 *)
Theorem concrete_speculation M m sample sources tokens : exists n, length sources <= n /\
  let E := embed m in let U := unembed M m in let Ls := layers M m in
  speculate Nat.eq_dec E U Ls sample sources tokens (full E U Ls tokens)
  = stepwise E U Ls sample n tokens (full E U Ls tokens).
Proof.
  destruct (speculation Nat.eq_dec (embed m) (unembed M m) (layers M m) sample sources tokens)
    as (n & H & E & _).
  now exists n.
Qed.

(* A4 *)
Theorem concrete_reuse M m sel old tokens : shaped (layers M m) old tokens ->
  let exact := snd (full (embed m) (unembed M m) (layers M m) tokens) in
  fst (mended (embed m) (layers M m) sel old tokens) = exact
  <-> forall l p, l < length (layers M m) -> p < length tokens -> kept sel l p ->
        entry old l p = entry exact l p.
Proof. exact (selective_recomputation (embed m) (layers M m) sel old tokens). Qed.

(* A5 *)
Theorem concrete_span M m b stay text :
  keep_rows stay text (kvs_placed (layer_of M (conf m) b) (embed_placed (embed m) text))
  = kvs_placed (layer_of M (conf m) b) (embed_placed (embed m) (filter stay text)).
Proof. apply eviction_forgets_at_layer_0. Qed.

(** * The trace is of this very run
   Its K/V are the caches, and the last of its streams gives the logits. *)
Lemma fwd_activations M c b hs : fwd (layer_of M c b) hs
  = map resid_post (mapi (fun i h => block_activations M c b i h
      (firstn (S i) (kvs (layer_of M c b) hs))) hs).
Proof.
  unfold fwd, rows. generalize (kvs (layer_of M c b) hs). generalize 0.
  induction hs as [|h hs IH]; intros k ks; cbn [mapi_from map]; [reflexivity|]. f_equal. apply IH.
Qed.
Lemma trace_from_run M m bs : forall hs,
  map fst (trace_from M m bs hs) = caches (map (layer_of M (conf m)) bs) hs /\
  map (fun t => map resid_post (snd t)) (trace_from M m bs hs)
  = mapi (fun l _ => run (firstn (S l) (map (layer_of M (conf m)) bs)) hs) bs.
Proof.
  induction bs as [|b bs IH]; intros hs; [now split|].
  destruct (IH (fwd (layer_of M (conf m) b) hs)) as [I J].
  cbn [trace_from map caches mapi_from fst snd]. rewrite <- fwd_activations.
  split; [now rewrite I|].
  f_equal. rewrite J. clear. generalize (map (layer_of M (conf m)) bs). intros ls. generalize 0.
  induction bs as [|b' bs IH]; intros k; cbn [mapi_from]; [reflexivity|]. f_equal. apply IH.
Qed.
Theorem trace_is_run M m tokens :
  map fst (trace M m tokens) = snd (full (embed m) (unembed M m) (layers M m) tokens) /\
  map (fun t => map resid_post (snd t)) (trace M m tokens)
  = mapi (fun l _ => stream (embed m) (layers M m) (S l) tokens) (blocks m).
Proof.
  destruct (trace_from_run M m (blocks m) (mapi (embed m) tokens)) as [A B].
  unfold trace, full, stream. cbn [snd]. fold (layers M m) in A, B. rewrite A, B. now split.
Qed.

Print Assumptions concrete_projection.
Print Assumptions concrete_markov.
Print Assumptions concrete_decode_is_forward.
Print Assumptions concrete_any_eviction.
Print Assumptions concrete_replay.
Print Assumptions concrete_rows.
Print Assumptions concrete_causal.
Print Assumptions concrete_layer0.
Print Assumptions concrete_receptive_field.
Print Assumptions concrete_speculation.
Print Assumptions concrete_reuse.
Print Assumptions concrete_span.
Print Assumptions trace_is_run.
