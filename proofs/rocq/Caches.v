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
  assert (Ks : kvs L (firstn (length hs - budget) hs) ++ recent s ++
    mapi_from (length hs) (kv L) new
               = kvs L (hs ++ new)).
  { rewrite E, kvs_firstn, app_assoc, firstn_skipn. now rewrite kvs_app. }
  rewrite Ks, <- kvs_app.
  set (up := rows L (length hs) new (kvs L (hs ++ new))).
  set (carried := if carry_on stores then _ else _).
  assert (Lf : length (fwd L hs) = length hs) by apply fwd_length.
  specialize (IH stores old ts (fwd L hs) up carried). rewrite Lf in IH.
  destruct stores as [|s' stores'].
  - destruct ls as [|L' ls]; [|now destruct H]. cbn [extend_residual extend caches fst].
    split; [reflexivity|]. split; [|constructor]. cbn [all_hold]. split; [|exact I].
    split; cbn [checkpoint recent].
    + apply grown_keeps; auto. destruct T as [T | ->]; [right; exact T | left; reflexivity].
    + f_equal. unfold kvs. rewrite mapi_length. reflexivity.
  - inversion_clear F as [|? ? F1 F2].
    destruct (extend_residual ls (s' :: stores') (length hs) (length hs - budget) carried ts up)
      as [out stores2] eqn:X.
    destruct (extend ls (caches ls (fwd L hs)) (length hs) up) as [out' cache'] eqn:Y.
    destruct IH as (I1 & I2 & I3); auto.
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

(* What there is before the first token: something at layer 0, and tokens nowhere else. *)
Definition startable (kinds : list kept) : Prop :=
  match kinds with
  | Nothing :: _ => False
  | k :: kinds => (k = Tokens [] \/ k = Rows []) /\
      Forall (fun k => k = Nothing \/ k = Rows []) kinds
  | [] => True
  end.
Lemma start_holds ls : forall kinds, length kinds = length ls ->
  Forall (fun k => k = Nothing \/ k = Tokens [] \/ k = Rows []) kinds ->
  all_hold ls (map (fun k => {| checkpoint := k; recent := [] |}) kinds) [] [].
Proof.
  induction ls as [|L ls IH]; intros [|k kinds] N F; try easy.
  inversion_clear F as [|? ? K F']. injection N as N.
  split; [|exact (IH kinds N F')]. split; [|reflexivity].
  destruct K as [-> | [-> | ->]]; simpl; auto.
Qed.

(* T4 and T5 for this program: whatever the budget and the checkpoints, in any chunks, it gives what
   one pass over the whole text gives. *)
Theorem residual_is_full ls kinds chunks : length kinds = length ls -> startable kinds ->
  fst (residual ls kinds chunks) = outputs emb head ls (concat chunks).
Proof.
  intros N St.
  assert (F : Forall (fun k => k = Nothing \/ k = Tokens [] \/ k = Rows []) kinds /\
              Forall no_tokens (tl (map (fun k => {| checkpoint := k; recent := [] |}) kinds))).
  { destruct kinds as [|k kinds]; [split; constructor|]. cbn [map tl].
    assert (H : (k = Tokens [] \/ k = Rows []) /\
                Forall (fun k => k = Nothing \/ k = Rows []) kinds) by now destruct k.
    destruct H as [K H]. split.
    - constructor; [tauto|]. eapply Forall_impl; [|exact H]. cbn. tauto.
    - apply Forall_map. eapply Forall_impl; [|exact H]. cbn. now intros ? [-> | ->]. }
  destruct F as [F F'].
  enough (H : exists stores, residual ls kinds chunks = (outputs emb head ls (concat chunks),
    stores)
    /\ all_hold ls stores (concat chunks) (mapi emb (concat chunks)) /\ Forall no_tokens (tl stores)
    /\ match stores with s :: _ => checkpoint s <> Nothing | [] => True end).
  { destruct H as (stores & -> & _). reflexivity. }
  unfold residual. induction chunks as [|ts chunks IH] using rev_ind.
  - eexists. split; [cbn [fold_left concat]|].
    + f_equal. symmetry. apply length_zero_iff_nil, outputs_length.
    + split; [now apply start_holds|]. split; [exact F'|].
      destruct kinds as [|k kinds]; [exact I|]. cbn. now destruct k.
  - rewrite fold_left_app, concat_app. destruct IH as (stores & E & H & T & K). rewrite E.
    cbn [fold_left concat]. rewrite app_nil_r. set (old := concat chunks) in *.
    unfold residual_chunk. rewrite outputs_length.
    pose proof (extend_is_extend ls stores old ts (mapi emb old) (mapi_from (length old) emb ts) [])
      as X.
    rewrite mapi_length in X. specialize (X eq_refl H).
    destruct (extend_residual ls stores (length old) (length old - budget) [] ts _)
      as [hs stores'] eqn:R.
    destruct X as (X1 & X2 & X3); auto.
    { destruct stores; [exact I|]. intros Q. now destruct K. }
    { destruct stores; [exact I|]. now right. }
    exists stores'. split; [|split; [|split; [exact X3|]]].
    + f_equal. rewrite X1. unfold outputs. rewrite mapi_app.
      destruct (extend_caches ls (mapi emb old) (mapi_from (0 +
        length old) emb ts)) as (new & E1 & E2).
      rewrite mapi_length in E1. cbn [Nat.add] in *. rewrite E1, E2. cbn [fst]. now rewrite map_app.
    + rewrite mapi_app. exact X2.
    + destruct ls as [|L ls], stores as [|s stores]; try easy; cbn [extend_residual] in R.
      * now injection R as _ <-.
      * destruct (extend_residual ls stores _ _ _ _ _) as [o3 s3]. injection R as _ <-.
        cbn [checkpoint]. now destruct (checkpoint s).
Qed.
End Residual.

(** * For the decoder of Decoder.v *)
Section Concrete.
Variable M : machine.
Variable m : model.

(* Residual(budget, checkpoints): `tokens` stands for the first layer's, then whether to keep. *)
Definition kinds (tokens : bool) (kept_at : list bool) : list (@kept nat row) :=
  match map (fun k : bool => if k then Rows [] else Nothing) kept_at with
  | _ :: above => (if tokens then Tokens [] else Rows []) :: above
  | [] => []
  end.
Definition decode_residual (budget : nat) (tokens : bool) (kept_at : list bool)
    (chunks : list (list nat)) : list row :=
  fst (residual (embed m) (unembed M m) budget (layers M m) (kinds tokens kept_at) chunks).

(* Scheduled(schedule): schedule step layer position. *)
Definition decode_scheduled (schedule : nat -> nat -> nat -> want) (chunks : list (list nat)) :=
  snd (fst (decode_ev (embed m) (unembed M m) (layers M m)
    (fun calls => schedule (length calls - 1)) chunks)).

Theorem concrete_residual budget tokens kept_at chunks : length kept_at = length (blocks m) ->
  decode_residual budget tokens kept_at chunks = logits M m (concat chunks).
Proof.
  intros N. apply residual_is_full.
  - unfold kinds, layers. rewrite map_length, <- N. destruct kept_at; [reflexivity|].
    cbn. now rewrite map_length.
  - unfold kinds. destruct kept_at as [|k kept_at]; [exact I|]. cbn.
    assert (F : Forall (fun k : @kept nat row => k = Nothing \/ k = Rows [])
      (map (fun k : bool => if k then Rows [] else Nothing) kept_at)).
    { apply Forall_map, Forall_forall. intros [] _; auto. }
    destruct tokens; (split; [auto | exact F]).
Qed.
Theorem concrete_scheduled schedule chunks :
  decode_scheduled schedule chunks = logits M m (concat chunks).
Proof. apply any_eviction_is_exact. Qed.
End Concrete.

Print Assumptions residual_is_full.
Print Assumptions concrete_residual.
Print Assumptions concrete_scheduled.
