(* Markov.v -- T1 to T5, T8, T10 and T11 for an arbitrary causal decoder: arbitrary types, and of a
   layer nothing but two functions, `kv` (`kv_from_residual`) and `g` (the rest of `block`).
   No arithmetic is assumed, so "equal" means equal: bit for bit.  Assumed are row locality, since
   `kv` and `g` get one row, and no path past the stream: the former Machines.v proves of the
   concrete decoder, the latter the dataflow certificate shows for the real code. *)
From Coq Require Import List Lia ZArith.
Import ListNotations.
From Minikv Require Export Lists.

Section Decoder.
Context {Tok V KV Out : Type}.          (* tokens, residual vectors, K/V entries, logits *)

Record layer := {
  kv : nat -> V -> KV;              (* K/V entry of a row, from its position and itself *)
  g : nat -> V -> list KV -> V }.   (* the row's new value, given the K/V of positions 0..p *)

Variable emb : nat -> Tok -> V.         (* position and token -> the stream before layer 0 *)
Variable head : V -> Out.               (* the stream after the last layer -> logits *)
Variable Ls : list layer.

(** * The full forward pass: all positions, causal mask *)
Definition kvs (L : layer) (hs : list V) : list KV := mapi (kv L) hs.
Definition rows (L : layer) (p : nat) (hs : list V) (ks : list KV) : list V :=
  mapi_from p (fun i h => g L i h (firstn (S i) ks)) hs.
Definition fwd (L : layer) (hs : list V) : list V := rows L 0 hs (kvs L hs).
Definition run (ls : list layer) (hs : list V) : list V := fold_left (fun hs L => fwd L hs) ls hs.

Definition stream (l : nat) (toks : list Tok) : list V := run (firstn l Ls) (mapi emb toks).
Definition outputs (toks : list Tok) : list Out := map head (run Ls (mapi emb toks)).

Lemma fwd_length L hs : length (fwd L hs) = length hs.
Proof. apply mapi_length. Qed.
Lemma run_length ls : forall hs, length (run ls hs) = length hs.
Proof. induction ls as [|L ls IH]; intros hs; simpl; [|rewrite IH, fwd_length]; reflexivity. Qed.

Lemma kvs_app L hs more : kvs L (hs ++ more) = kvs L hs ++ mapi_from (length hs) (kv L) more.
Proof. exact (mapi_app (kv L) hs more 0). Qed.

Lemma fwd_app L hs more :               (* old rows do not see new ones *)
  fwd L (hs ++ more) = fwd L hs ++ rows L (length hs) more (kvs L (hs ++ more)).
Proof.
  unfold fwd, rows. rewrite mapi_app. f_equal. apply mapi_ext. intros i x Hi. simpl in Hi.
  assert (N : length (kvs L hs) = length hs) by apply mapi_length.
  rewrite kvs_app, firstn_app. replace (S i - length (kvs L hs)) with 0 by lia.
  simpl firstn at 2. now rewrite app_nil_r.
Qed.

Lemma run_from_stream l toks : run Ls (mapi emb toks) = run (skipn l Ls) (stream l toks).
Proof. unfold stream, run. rewrite <- fold_left_app, firstn_skipn. reflexivity. Qed.

(** * T1: projection
   A row of K/V is a function of the same row of the stream, whatever rows are beside it. *)
Theorem projection L hs p : nth_error (kvs L hs) p = option_map (kv L p) (nth_error hs p).
Proof. apply mapi_nth. Qed.

(** * T2: Markov
   The stream at any one layer, all positions, determines the outputs. *)
Theorem markov l toks1 toks2 : stream l toks1 = stream l toks2 -> outputs toks1 = outputs toks2.
Proof. intros H. unfold outputs. now rewrite !(run_from_stream l), H. Qed.

(* A pass with a hook that may replace the stream on entry to each layer ... *)
Fixpoint run_hook (hook : nat -> list V -> list V) (l : nat) (ls : list layer) (hs : list V) :=
  match ls with
  | [] => hook l hs
  | L :: ls => run_hook hook (S l) ls (fwd L (hook l hs))
  end.
Definition patch (at_l : nat) (donor : list V) (l : nat) (hs : list V) :=
  if Nat.eqb l at_l then donor else hs.

Lemma patch_at l donor hs : patch l donor l hs = donor.
Proof. unfold patch. now rewrite Nat.eqb_refl. Qed.
Lemma patch_off m donor l hs : l <> m -> patch m donor l hs = hs.
Proof. intros H. unfold patch. now rewrite (proj2 (Nat.eqb_neq l m)). Qed.

Lemma hook_after m donor ls : forall l hs, m < l -> run_hook (patch m donor) l ls hs = run ls hs.
Proof.
  induction ls as [|L ls IH]; intros l hs H; simpl; rewrite patch_off by lia;
    [reflexivity | apply IH; lia].
Qed.
Lemma hook_patch donor ls : forall n l hs, n <= length ls ->
  run_hook (patch (l + n) donor) l ls hs = run (skipn n ls) donor.
Proof.
  induction ls as [|L ls IH]; intros [|n] l hs H; simpl in H; try lia; simpl run_hook.
  - now rewrite Nat.add_0_r, patch_at.
  - rewrite Nat.add_0_r, patch_at, hook_after by lia. reflexivity.
  - rewrite patch_off, <- Nat.add_succ_comm by lia. apply IH. lia.
Qed.

(* ... with the stream of a donor patched in at layer l gives the outputs of the donor. *)
Theorem patched_is_donor l recipient donor : l <= length Ls ->
  map head (run_hook (patch l (stream l donor)) 0 Ls (mapi emb recipient)) = outputs donor.
Proof.
  intros H. rewrite (hook_patch _ Ls l 0) by exact H. unfold outputs.
  now rewrite <- run_from_stream.
Qed.

(** * T3: cache-free; decoding in any chunks
   `extend` takes new rows, from position p on, through the layers.  A cache is one list of K/V
   entries per layer. *)
Fixpoint extend (ls : list layer) (cache : list (list KV)) (p : nat) (hs : list V)
  : list V * list (list KV) :=
  match ls, cache with
  | L :: ls, c :: cache =>
      let c' := c ++ mapi_from p (kv L) hs in
      let (hs', cache') := extend ls cache p (rows L p hs c') in (hs', c' :: cache')
  | _, _ => (hs, [])
  end.

(* One call of the decoder with a chunk of tokens: a whole prompt, a part of one, or one token. *)
Definition decode_chunk (state : list Out * list (list KV)) (toks : list Tok) :=
  let (outs, cache) := state in
  let p := length outs in
  let (hs, cache') := extend Ls cache p (mapi_from p emb toks) in (outs ++ map head hs, cache').
Definition decode (chunks : list (list Tok)) :=
  fold_left decode_chunk chunks ([], map (fun _ => []) Ls).

(* What one pass over everything gives, with the K/V that it computes on the way. *)
Fixpoint caches (ls : list layer) (hs : list V) : list (list KV) :=
  match ls with [] => [] | L :: ls => kvs L hs :: caches ls (fwd L hs) end.
Definition full (toks : list Tok) := (outputs toks, caches Ls (mapi emb toks)).

Lemma extend_caches ls : forall hs more, exists new,
  extend ls (caches ls hs) (length hs) more = (new, caches ls (hs ++ more))
  /\ run ls (hs ++ more) = run ls hs ++ new.
Proof.
  induction ls as [|L ls IH]; intros hs more; simpl; [now exists more|].
  destruct (IH (fwd L hs) (rows L (length hs) more (kvs L (hs ++ more)))) as (new & E & F).
  exists new. rewrite fwd_length in E. rewrite <- kvs_app, E, fwd_app.
  split; [reflexivity | exact F].
Qed.

Lemma outputs_length toks : length (outputs toks) = length toks.
Proof. unfold outputs. now rewrite map_length, run_length, mapi_length. Qed.

Lemma decode_chunk_full toks more : decode_chunk (full toks) more = full (toks ++ more).
Proof.
  unfold full, decode_chunk, outputs. rewrite map_length, run_length, !mapi_length, mapi_app. simpl.
  destruct (extend_caches Ls (mapi emb toks) (mapi_from (length toks) emb more)) as (new & E & F).
  rewrite mapi_length in E. now rewrite E, F, map_app.
Qed.

Lemma full_nil : full [] = ([], map (fun _ => []) Ls).
Proof.
  unfold full. f_equal; [apply length_zero_iff_nil, outputs_length|].
  simpl. induction Ls as [|L ls IH]; simpl; [reflexivity|]. now f_equal.
Qed.

(* T5's second half: from the K/V of a full pass (a replay) decoding goes on as if never cut. *)
Theorem replay_then_continue chunks : forall toks,
  fold_left decode_chunk chunks (full toks) = full (toks ++ concat chunks).
Proof.
  induction chunks as [|c cs IH]; intros toks; cbn [fold_left concat]; [now rewrite app_nil_r|].
  now rewrite decode_chunk_full, IH, <- app_assoc.
Qed.

(* Decoding with a cache, in chunks of any size, gives the logits and the K/V of one full pass. *)
Theorem decode_is_forward chunks : decode chunks = full (concat chunks).
Proof. unfold decode. rewrite <- full_nil. apply (replay_then_continue chunks []). Qed.

Corollary any_chunking chunks1 chunks2 :
  concat chunks1 = concat chunks2 -> decode chunks1 = decode chunks2.
Proof. intros H. now rewrite !decode_is_forward, H. Qed.

(* The cache of layer l is T1's projection of the stream at layer l. *)
Theorem cache_is_projection chunks l L : nth_error Ls l = Some L ->
  nth_error (snd (decode chunks)) l = Some (kvs L (stream l (concat chunks))).
Proof.
  rewrite decode_is_forward. unfold stream. simpl. generalize (mapi emb (concat chunks)). revert l.
  induction Ls as [|L' ls IH]; intros [|l] hs H; simpl in *; try easy; [congruence|]. now apply IH.
Qed.

(* Hence the same text under any sampler, with the cache or without: each call passes the logits
   of all calls so far to the sampler, which names the next token. *)
Fixpoint generate (logits : list (list Tok) -> list Out) (sample : list Out -> Tok) n chunks :=
  match n with
  | 0 => concat chunks
  | S n => generate logits sample n (chunks ++ [[sample (logits chunks)]])
  end.
Definition cache_free (chunks : list (list Tok)) := outputs (concat chunks).

Theorem cache_free_generation sample n : forall chunks,
  generate (fun cs => fst (decode cs)) sample n chunks = generate cache_free sample n chunks.
Proof. induction n; intros; simpl; [|rewrite decode_is_forward, IHn]; reflexivity. Qed.

(** * T4: any eviction
   What a layer keeps of one position: K/V, the residual on entry to the layer, or both. *)
Inductive keep := KeepKV (k : KV) | KeepRes (h : V) | KeepBoth (h : V) (k : KV).
Definition cell : Type := nat * keep.   (* with its position *)

Definition read (L : layer) (c : cell) : KV :=   (* recompute K/V from the residual if need be *)
  match c with (_, KeepKV k) | (_, KeepBoth _ k) => k | (p, KeepRes h) => kv L p h end.

(* What a schedule may want of a position; a residual once dropped does not come back. *)
Inductive want := WantKV | WantResidual | WantBoth.
Definition evict (L : layer) (wanted : nat -> want) (c : cell) : cell :=
  (fst c, match wanted (fst c), snd c with
          | WantKV, _ => KeepKV (read L c)
          | WantResidual, KeepBoth h _ => KeepRes h
          | WantBoth, KeepRes h => KeepBoth h (read L c)
          | _, x => x
          end).

Definition new_cells (L : layer) (p : nat) (hs : list V) : list cell :=
  mapi_from p (fun p h => (p, KeepBoth h (kv L p h))) hs.

Fixpoint extend_ev (wanted : nat -> nat -> want) (l : nat) (ls : list layer)
                   (store : list (list cell)) (p : nat) (hs : list V)
  : list V * list (list cell) :=
  match ls, store with
  | L :: ls, c :: store =>
      let c' := c ++ new_cells L p hs in
      let (hs', store') := extend_ev wanted (S l) ls store p (rows L p hs (map (read L) c')) in
      (hs', map (evict L (wanted l)) c' :: store')
  | _, _ => (hs, [])
  end.

(* The policy sees the whole history, hence everything (the state is a function of the history).
   It answers for each call, layer and position, and may change its mind at every call. *)
Variable policy : list (list Tok) -> nat -> nat -> want.

Definition decode_ev_chunk (state : list (list Tok) * list Out * list (list cell))
  (toks : list Tok) :=
  let '(history, outs, store) := state in
  let p := length outs in
  let (hs, store') := extend_ev (policy (history ++ [toks])) 0 Ls store p (mapi_from p emb toks) in
  (history ++ [toks], outs ++ map head hs, store').
Definition decode_ev (chunks : list (list Tok)) :=
  fold_left decode_ev_chunk chunks ([], [], map (fun _ => []) Ls).

(* The bisimulation: each cell stands for the K/V entry that the full cache has there. *)
Definition ok (L : layer) (c : cell) (k : KV) : Prop :=
  match c with
  | (_, KeepKV k') => k' = k
  | (p, KeepRes h) => kv L p h = k
  | (p, KeepBoth h k') => k' = k /\ kv L p h = k
  end.
Fixpoint bisim (ls : list layer) (store : list (list cell)) (cache : list (list KV)) : Prop :=
  match ls, store, cache with
  | [], [], [] => True
  | L :: ls, c :: store, k :: cache => Forall2 (ok L) c k /\ bisim ls store cache
  | _, _, _ => False
  end.

Lemma ok_read L c k : ok L c k -> read L c = k.
Proof. destruct c as [p []]; simpl; intuition congruence. Qed.
Lemma ok_evict L wanted c k : ok L c k -> ok L (evict L wanted c) k.
Proof.
  destruct c as [p []]; unfold evict; simpl; destruct (wanted p); simpl; intuition congruence.
Qed.
Lemma ok_reads L cs ks : Forall2 (ok L) cs ks -> map (read L) cs = ks.
Proof. induction 1; simpl; [reflexivity|]. f_equal; [now apply ok_read | assumption]. Qed.
Lemma ok_evicts L wanted cs ks :
  Forall2 (ok L) cs ks -> Forall2 (ok L) (map (evict L wanted) cs) ks.
Proof. induction 1; simpl; constructor; [now apply ok_evict | assumption]. Qed.
Lemma ok_new L hs : forall p, Forall2 (ok L) (new_cells L p hs) (mapi_from p (kv L) hs).
Proof. unfold new_cells. induction hs; intros p; simpl; repeat constructor; auto. Qed.

Lemma extend_bisim wanted p ls : forall l store cache hs, bisim ls store cache ->
  fst (extend_ev wanted l ls store p hs) = fst (extend ls cache p hs)
  /\ bisim ls (snd (extend_ev wanted l ls store p hs)) (snd (extend ls cache p hs)).
Proof.
  induction ls as [|L ls IH]; intros l [|c store] [|k cache] hs B; simpl in B; try easy.
  destruct B as [Bc B]. cbn [extend_ev extend].
  pose proof (Forall2_app Bc (ok_new L hs p)) as N. rewrite (ok_reads _ _ _ N).
  specialize (IH (S l) store cache (rows L p hs (k ++ mapi_from p (kv L) hs)) B).
  destruct (extend_ev _ (S l) ls _ _ _), (extend ls _ _ _). simpl in *.
  split; [apply IH|]. split; [now apply ok_evicts | apply IH].
Qed.

Lemma decode_bisim chunks :
  let '(history, outs, store) := decode_ev chunks in
  history = chunks /\ outs = fst (decode chunks) /\ bisim Ls store (snd (decode chunks)).
Proof.
  unfold decode_ev, decode. induction chunks as [|c cs IH] using rev_ind.
  - repeat split. simpl. induction Ls; simpl; repeat split; auto.
  - rewrite !fold_left_app. destruct (fold_left decode_ev_chunk _ _) as [[history outs] store].
    destruct (fold_left decode_chunk _ _) as [outs' cache]. simpl in *.
    destruct IH as (-> & -> & B).
    pose proof (extend_bisim (policy (cs ++ [c])) (length outs') Ls 0 store cache
                  (mapi_from (length outs') emb c) B) as S.
    destruct (extend_ev _ _ _ _ _ _), (extend _ _ _ _). simpl in *.
    destruct S as [-> S]. auto.
Qed.

Theorem any_eviction_is_exact chunks : snd (fst (decode_ev chunks)) = outputs (concat chunks).
Proof.
  pose proof (decode_bisim chunks) as B. rewrite decode_is_forward in B.
  destruct (decode_ev chunks) as [[history outs] store]. now destruct B as (_ & -> & _).
Qed.

Corollary evicting_generation sample n : forall chunks,
  generate (fun cs => snd (fst (decode_ev cs))) sample n chunks
  = generate cache_free sample n chunks.
Proof. induction n; intros; simpl; [|rewrite any_eviction_is_exact, IHn]; reflexivity. Qed.

(** * T5: replay
   From a checkpoint of the stream at layer l follow the outputs and the K/V of all layers >= l;
   from layer 0, that is, from the token ids, everything does. *)
Theorem replay l toks :
  map head (run (skipn l Ls) (stream l toks)) = outputs toks
  /\ caches (skipn l Ls) (stream l toks) = skipn l (snd (full toks)).
Proof.
  split; [unfold outputs; now rewrite <- run_from_stream|].
  unfold stream. simpl. generalize (mapi emb toks). revert l.
  induction Ls as [|L ls IH]; intros [|l] hs; simpl; try reflexivity. apply IH.
Qed.

(** * T8: causality
   The stream, K/V and outputs of the first n tokens are those of a text that ends there. *)
Lemma run_firstn ls hs n : firstn n (run ls hs) = run ls (firstn n hs).
Proof.
  destruct (Nat.le_gt_cases (length hs) n) as [H|H].
  - rewrite !firstn_all2; rewrite ?run_length; auto.
  - destruct (extend_caches ls (firstn n hs) (skipn n hs)) as (new & _ & E).
    rewrite firstn_skipn in E. rewrite E, firstn_app, firstn_all2, run_length;
      rewrite ?run_length, firstn_length_le by lia; [|lia].
    now rewrite Nat.sub_diag, app_nil_r.
Qed.

Theorem causal l L toks n :
  firstn n (stream l toks) = stream l (firstn n toks)
  /\ firstn n (kvs L (stream l toks)) = kvs L (stream l (firstn n toks))
  /\ firstn n (outputs toks) = outputs (firstn n toks).
Proof.
  assert (S : firstn n (stream l toks) = stream l (firstn n toks)).
  { unfold stream. now rewrite run_firstn, mapi_firstn. }
  repeat split; [exact S | unfold kvs; now rewrite mapi_firstn, S |].
  unfold outputs. now rewrite firstn_map, run_firstn, mapi_firstn.
Qed.

(** * T10: prefix
   K/V of layer 0 depend on token and position alone; those of any layer on the prefix alone. *)
Theorem layer0_kv L toks p :
  nth_error (kvs L (stream 0 toks)) p = option_map (fun t => kv L p (emb p t)) (nth_error toks p).
Proof.
  rewrite projection. unfold stream. simpl. rewrite mapi_nth. now destruct (nth_error toks p).
Qed.

Corollary prefix_kv l L toks1 toks2 n : firstn n toks1 = firstn n toks2 ->
  firstn n (kvs L (stream l toks1)) = firstn n (kvs L (stream l toks2)).
Proof.
  intros H. destruct (causal l L toks1 n) as (_ & -> & _), (causal l L toks2 n) as (_ & -> & _).
  now rewrite H.
Qed.

(** * T11: receptive field
   A layer with a window of w reads, beside the row itself, the last w entries of K/V alone. *)
Definition windowed (w : nat) (L : layer) := forall p h ks ks',
  length ks = length ks' ->
  (forall s, length ks <= s + w -> nth_error ks s = nth_error ks' s) ->
  g L p h ks = g L p h ks'.
Definition agree_from (a : nat) (hs hs' : list V) :=
  length hs = length hs' /\ forall p, a <= p -> nth_error hs p = nth_error hs' p.
Definition reach (ws : list nat) : nat := fold_right (fun w sum => (w - 1) + sum) 0 ws.


Lemma fwd_agree w L a hs hs' : windowed w L ->
  agree_from a hs hs' -> agree_from (a + (w - 1)) (fwd L hs) (fwd L hs').
Proof.
  intros W [N H]. split; [now rewrite !fwd_length|]. intros p P.
  unfold fwd, rows. rewrite !mapi_nth, <- H by lia. destruct (nth_error hs p) as [h|] eqn:E;
    cbn [option_map Nat.add]; [|reflexivity]. f_equal.
  assert (B : p < length hs) by (apply nth_error_Some; congruence).
  assert (K : forall rs, length rs = length hs -> length (firstn (S p) (kvs L rs)) = S p).
  { intros rs R. unfold kvs. rewrite firstn_length, mapi_length, R. lia. }
  apply W; rewrite !K by auto; [reflexivity|]. intros s S.
  destruct (Nat.le_gt_cases (Datatypes.S p) s) as [G|G].
  - rewrite !(proj2 (nth_error_None _ _)); rewrite ?K; auto.
  - rewrite !nth_firstn, !projection, H by lia. reflexivity.
Qed.

(* The rows of the stream before position a reach no further than a + reach: what lies beyond is the
   same for any of them, so that a memory may drop them once all later tokens lie beyond. *)
Theorem receptive_field ws ls a : Forall2 windowed ws ls -> forall hs hs',
  agree_from a hs hs' -> agree_from (a + reach ws) (run ls hs) (run ls hs').
Proof.
  intros F. revert a. induction F as [|w L ws ls W F IH]; intros a hs hs' H; simpl.
  - now rewrite Nat.add_0_r.
  - rewrite Nat.add_assoc. apply IH. now apply fwd_agree.
Qed.

End Decoder.

Print Assumptions projection.
Print Assumptions markov.
Print Assumptions patched_is_donor.
Print Assumptions replay_then_continue.
Print Assumptions decode_is_forward.
Print Assumptions any_chunking.
Print Assumptions cache_is_projection.
Print Assumptions cache_free_generation.
Print Assumptions any_eviction_is_exact.
Print Assumptions evicting_generation.
Print Assumptions replay.
Print Assumptions causal.
Print Assumptions layer0_kv.
Print Assumptions prefix_kv.
Print Assumptions receptive_field.
