(* Caches.v -- KV-Direct's caches as programs: `Residual`, which keeps K/V of the newest tokens and
   residual checkpoints (of tokens, the embedding, every layer, every k-th, any set with layer 0),
   and `Scheduled`, which keeps what a schedule says.  Both give what the full cache gives, for any
   budget, set of checkpoints, schedule and chunks: T4 and T5.  Nothing is assumed.

   Not here: `forget`, which drops rows of checkpoints behind windows (T11), and `truncate`. *)
From Coq Require Import List Lia.
From Minikv Require Import Markov Decoder.
Import ListNotations.

Section Residual.
Context {Tok V KV Out : Type}.
Variable emb : nat -> Tok -> V.
Variable head : V -> Out.

(* What a layer keeps of every token, beside K/V of the newest. *)
Inductive kept := Nothing | Tokens (ts : list Tok) | Rows (hs : list V).
Record store := { checkpoint : kept; recent : list KV }.

(* The stream of the first tokens before this layer: from its checkpoint, or as replayed. *)
Definition evicted_rows (evicted : nat) (replayed : list V) (c : kept) : list V :=
  match c with
  | Nothing => replayed
  | Tokens ts => mapi emb (firstn evicted ts)
  | Rows hs => firstn evicted hs
  end.
Definition grown (c : kept) (ts : list Tok) (hs : list V) : kept :=
  match c with
  | Nothing => Nothing
  | Tokens old => Tokens (old ++ ts)
  | Rows old => Rows (old ++ hs)
  end.
(* Does the layer above need the stream of the evicted tokens from this one? *)
Definition carry_on (above : list store) : bool :=
  match above with s :: _ => match checkpoint s with Nothing => true | _ => false end | [] => false
  end.

Variable budget : nat.

(* Residual.update, layer by layer: `hs` are the rows of the new tokens `ts`, from position p on;
   the first `evicted` tokens have no K/V.  Theirs are recomputed, used and dropped. *)
Fixpoint extend_residual (ls : list (@layer V KV)) (stores : list store) (p evicted : nat)
    (replayed : list V) (ts : list Tok) (hs : list V) : list V * list store :=
  match ls, stores with
  | L :: ls, s :: stores =>
      let old := evicted_rows evicted replayed (checkpoint s) in
      let old_kv := kvs L old in
      let ks := old_kv ++ recent s ++ mapi_from p (kv L) hs in
      let replayed := if carry_on stores then rows L 0 old old_kv else [] in
      let (hs', stores') := extend_residual ls stores p evicted replayed ts (rows L p hs ks) in
      (hs', {| checkpoint := grown (checkpoint s) ts hs;
               recent := skipn (length ks - budget) ks |} :: stores')
  | _, _ => (hs, [])
  end.

Definition residual_chunk (ls : list (@layer V KV)) (state : list Out * list store)
    (ts : list Tok) : list Out * list store :=
  let (outs, stores) := state in
  let p := length outs in
  let (hs, stores') :=
    extend_residual ls stores p (p - budget) [] ts (mapi_from p emb ts) in
  (outs ++ map head hs, stores').
Definition residual (ls : list (@layer V KV)) (kinds : list kept) (chunks : list (list Tok)) :=
  fold_left (residual_chunk ls) chunks
    ([], map (fun k => {| checkpoint := k; recent := [] |}) kinds).

(** * It is the full cache
   `holds`: what a store has of a layer whose stream so far is `hs`. *)
Definition keeps (c : kept) (ts : list Tok) (hs : list V) : Prop :=
  match c with
  | Nothing => True
  | Tokens old => old = ts /\ hs = mapi emb ts
  | Rows old => old = hs
  end.
Definition holds (L : @layer V KV) (s : store) (ts : list Tok) (hs : list V) : Prop :=
  keeps (checkpoint s) ts hs /\ recent s = skipn (length hs - budget) (kvs L hs).
Fixpoint all_hold (ls : list (@layer V KV)) (stores : list store) (ts : list Tok) (hs : list V) :=
  match ls, stores with
  | L :: ls, s :: stores => holds L s ts hs /\ all_hold ls stores ts (fwd L hs)
  | [], [] => True
  | _, _ => False
  end.
(* Tokens stand for the embedding, so only the first layer may keep them. *)
Definition no_tokens (s : store) : Prop :=
  match checkpoint s with Tokens _ => False | _ => True end.

Lemma kvs_firstn L (hs : list V) n : kvs (KV := KV) L (firstn n hs) = firstn n (kvs L hs).
Proof. unfold kvs. now rewrite mapi_firstn. Qed.
Lemma fwd_firstn (L : @layer V KV) hs n : fwd L (firstn n hs) = firstn n (fwd L hs).
Proof. exact (eq_sym (run_firstn [L] hs n)). Qed.

Lemma grown_keeps c old ts hs new : length hs = length old ->
  keeps c old hs -> new = mapi_from (length old) emb ts \/ (forall o, c <> Tokens o) ->
  keeps (grown c ts new) (old ++ ts) (hs ++ new).
Proof.
  intros N K H. destruct c as [|o|o]; simpl in *; [exact I | | now rewrite K].
  destruct K as [-> ->], H as [-> | H]; [|now destruct (H old)].
  split; [reflexivity|]. now rewrite mapi_app.
Qed.

Lemma extend_is_extend ls : forall stores old ts hs new replayed,
  length hs = length old -> all_hold ls stores old hs ->
  (match stores with s :: _ => checkpoint s = Nothing ->
     replayed = firstn (length hs - budget) hs | [] => True end) ->
  (match stores with s :: _ => (forall o, checkpoint s <> Tokens o) \/
     new = mapi_from (length old) emb ts | [] => True end) ->
  Forall no_tokens (tl stores) ->
  let '(out, stores') := extend_residual ls stores (length hs) (length hs - budget)
                           replayed ts new in
  out = fst (extend ls (caches ls hs) (length hs) new) /\
  all_hold ls stores' (old ++ ts) (hs ++ new) /\ Forall no_tokens (tl stores').
Proof.
  induction ls as [|L ls IH]; intros [|s stores] old ts hs new replayed N H R T F; try easy.
  destruct H as [[K E] H]. cbn [extend_residual extend caches tl] in *. cbv zeta.
  assert (Old : evicted_rows (length hs - budget) replayed (checkpoint s)
                = firstn (length hs - budget) hs).
  { destruct (checkpoint s) as [|o|o]; simpl in *; [now apply R | | now rewrite K].
    destruct K as [-> ->]. now rewrite mapi_firstn. }
  rewrite Old.
  assert (Ks : kvs L (firstn (length hs - budget) hs) ++ recent s ++ mapi_from (length hs) (kv L) new
               = kvs L (hs ++ new)).
  { rewrite E, kvs_firstn, app_assoc, firstn_skipn. now rewrite kvs_app. }
  rewrite Ks, <- kvs_app.
  set (up := rows L (length hs) new (kvs L (hs ++ new))).
  set (carried := if carry_on stores then _ else _).
  assert (Lf : length (fwd L hs) = length hs) by apply fwd_length.
  specialize (IH stores old ts (fwd L hs) up carried).
  destruct stores as [|s' stores'].
  - destruct ls as [|L' ls]; [|now destruct H]. cbn [extend_residual extend caches fst].
    split; [reflexivity|]. split; [|constructor]. cbn [all_hold]. split; [|exact I].
    split; cbn [checkpoint recent].
    + apply grown_keeps; auto. destruct T as [T | ->]; [right; exact T | left; reflexivity].
    + f_equal. unfold kvs. rewrite mapi_length. reflexivity.
  - inversion_clear F as [|? ? F1 F2].
    destruct (extend_residual ls (s' :: stores') _ _ carried ts up) as [out stores2] eqn:X.
    rewrite Lf, X in IH.
    destruct (extend ls (caches ls (fwd L hs)) (length hs) up) as [out' cache'] eqn:Y.
    destruct IH as (I1 & I2 & I3); auto.
    + congruence.
    + intros C. unfold carried, carry_on. rewrite C.
      change (rows L 0 (firstn (length hs - budget) hs)
        (kvs L (firstn (length hs - budget) hs))) with (fwd L (firstn (length hs - budget) hs)).
      apply fwd_firstn.
    + left. intros o Q. unfold no_tokens in F1. now rewrite Q in F1.
    + cbn [fst] in *. split; [exact I1|]. split; [|].
      * cbn [all_hold]. split.
        -- split; cbn [checkpoint recent].
           ++ apply grown_keeps; auto. destruct T as [T | ->]; [right; exact T | left; reflexivity].
           ++ f_equal. unfold kvs. rewrite mapi_length. reflexivity.
        -- now rewrite fwd_app.
      * cbn [tl]. destruct stores2 as [|s2 stores2]; [constructor|]. constructor; [|exact I3].
        destruct ls as [|L' ls]; [now destruct H|]. cbn [extend_residual] in X.
        destruct (extend_residual ls stores' _ _ _ _ _) as [o3 s3]. injection X as _ <- _.
        unfold no_tokens in *. cbn [checkpoint]. now destruct (checkpoint s').
Qed.
End Residual.
