(* Truncate.v -- `truncate`,
  by which a cache goes back to the first n tokens: what was dropped is as
   if it had never been seen.  For the full cache and for any schedule of evictions, over an
   arbitrary decoder, in any order of calls and truncations.  Caches.v has it for KV-Direct's cache.
   Nothing is assumed. *)
From Coq Require Import List Lia.
From Minikv Require Import Markov.
Import ListNotations.

(* What is done with a cache: it takes a chunk of tokens, or goes back to the first n. *)
Inductive step {Tok : Type} := Read (toks : list Tok) | Truncate (n : nat).
Arguments step : clear implicits.
(* The tokens that count in the end. *)
Definition text_step {Tok} (toks : list Tok) (s : step Tok) : list Tok :=
  match s with Read more => toks ++ more | Truncate n => firstn n toks end.
Definition text {Tok} (steps : list (step Tok)) : list Tok := fold_left text_step steps [].

Section Truncate.
Context {Tok V KV Out : Type}.
Variable emb : nat -> Tok -> V.
Variable head : V -> Out.
Variable Ls : list (@layer V KV).

Lemma outputs_firstn n toks :
  firstn n (outputs emb head Ls toks) = outputs emb head Ls (firstn n toks).
Proof. unfold outputs. now rewrite firstn_map, run_firstn, mapi_firstn. Qed.
Lemma kvs_firstn (L : @layer V KV) hs n : firstn n (kvs L hs) = kvs L (firstn n hs).
Proof. unfold kvs. now rewrite mapi_firstn. Qed.
Lemma fwd_firstn (L : @layer V KV) hs n : firstn n (fwd L hs) = fwd L (firstn n hs).
Proof. exact (run_firstn [L] hs n). Qed.
Lemma caches_firstn n (ls : list (@layer V KV)) : forall hs,
  map (firstn n) (caches ls hs) = caches ls (firstn n hs).
Proof.
  induction ls as [|L ls IH]; intros hs; cbn [caches map]; [reflexivity|].
  now rewrite IH, kvs_firstn, fwd_firstn.
Qed.

(** * The full cache *)
Definition full_step (state : list Out * list (list KV)) (s : step Tok) :=
  match s with
  | Read toks => decode_chunk emb head Ls state toks
  | Truncate n => let (outs, cache) := state in (firstn n outs, map (firstn n) cache)
  end.
Definition decode_steps (steps : list (step Tok)) :=
  fold_left full_step steps ([], map (fun _ => []) Ls).

Theorem truncated_is_never_seen steps : decode_steps steps = full emb head Ls (text steps).
Proof.
  unfold decode_steps, text. induction steps as [|s steps IH] using rev_ind.
  - cbn [fold_left]. now rewrite full_nil.
  - rewrite !fold_left_app, IH. cbn [fold_left].
    destruct s as [toks | n]; cbn [full_step text_step].
    + apply decode_chunk_full.
    + unfold full. rewrite outputs_firstn, caches_firstn. now rewrite mapi_firstn.
Qed.

(** * Any schedule *)
Variable policy : list (list Tok) -> nat -> nat -> want.
Definition ev_state : Type := list (list Tok) * list Out * list (list (@cell V KV)).
Definition ev_step (state : ev_state) (s : step Tok) : ev_state :=
  match s with
  | Read toks => decode_ev_chunk emb head Ls policy state toks
  | Truncate n =>
      let '(history, outs, store) := state in (history, firstn n outs, map (firstn n) store)
  end.
Definition decode_ev_steps (steps : list (step Tok)) : ev_state :=
  fold_left ev_step steps ([], [], map (fun _ => []) Ls).

Lemma Forall2_firstn {A B} (R : A -> B -> Prop) n : forall xs ys, Forall2 R xs ys ->
  Forall2 R (firstn n xs) (firstn n ys).
Proof. induction n; intros xs ys H; inversion H; subst; simpl; constructor; auto. Qed.
Lemma bisim_firstn n (ls : list (@layer V KV)) : forall store cache, bisim ls store cache ->
  bisim ls (map (firstn n) store) (map (firstn n) cache).
Proof.
  induction ls as [|L ls IH]; intros [|c store] [|k cache] H; simpl in *; try easy.
  split; [now apply Forall2_firstn | now apply IH].
Qed.

Theorem truncated_eviction_is_exact steps :
  snd (fst (decode_ev_steps steps)) = outputs emb head Ls (text steps).
Proof.
  enough (H : snd (fst (decode_ev_steps steps)) = fst (decode_steps steps) /\
    bisim Ls (snd (decode_ev_steps steps)) (snd (decode_steps steps))).
  { rewrite (proj1 H), truncated_is_never_seen. reflexivity. }
  unfold decode_ev_steps, decode_steps. induction steps as [|s steps IH] using rev_ind.
  - split; [reflexivity|]. cbn [fold_left snd]. induction Ls; simpl; repeat split; auto.
  - rewrite !fold_left_app. cbn [fold_left].
    destruct (fold_left ev_step _ _) as [[history outs] store].
    destruct (fold_left full_step _ _) as [outs' cache]. cbn [fst snd] in IH. destruct IH as [-> B].
    destruct s as [toks | n]; cbn [ev_step full_step fst snd]; [|split; [reflexivity|]].
    + unfold decode_ev_chunk, decode_chunk.
      pose proof (extend_bisim emb head (policy (history ++ [toks])) (length outs') Ls 0 store cache
        (mapi_from (length outs') emb toks) B) as S.
      destruct (extend_ev _ _ _ _ _ _), (extend _ _ _ _). cbn [fst snd] in *.
      destruct S as [-> S]. now split.
    + now apply bisim_firstn.
Qed.
End Truncate.

Print Assumptions truncated_is_never_seen.
Print Assumptions truncated_eviction_is_exact.
