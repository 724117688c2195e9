(* Residual.v -- the program `residual` of Caches.v gives what the full cache gives: T4, T5 and T11
   for it.  For any budget and set of checkpoints with layer 0, of tokens or rows, in any chunks,
     with
   rows forgotten behind windows or not, and after any truncation that it does not refuse; without
   forgetting it refuses none.  Nothing is assumed. *)
From Coq Require Import List Arith Bool Lia.
From Minikv Require Import Markov Truncate Decoder Concrete Caches Agree Replayed.
Import ListNotations.

Section Proof.
Context {Tok V KV Out : Type}.
Variable emb : nat -> Tok -> V.
Variable head : V -> Out.
Variable blank : KV.
Variable budget : nat.
Variable chunk : option nat.
Notation store := (@store Tok V KV).
Notation all_hold := (all_hold emb).

Variable ls : list (@layer V KV).
Variable ws : list (option nat).
Notation run_residual := (residual emb head blank budget chunk ls ws).
(* What there is before the first token: something at layer 0, and tokens nowhere else. *)
Definition startable (kinds : list (@kept Tok V)) : Prop :=
  match kinds with
  | k :: kinds => (k = Tokens [] \/ k = Rows []) /\
      Forall (fun k => k = Nothing \/ k = Rows []) kinds
  | [] => True
  end.
Definition initial (kinds : list (@kept Tok V)) : list store :=
  map (fun k => {| checkpoint := k; first := 0; recent := [] |}) kinds.
Lemma initial_holds : forall (us : list (@layer V KV)) (vs : list (option nat)) kinds a,
  length kinds = length us -> Forall2 sees vs us ->
  Forall (fun k => k = Nothing \/ k = Tokens [] \/ k = Rows []) kinds ->
  all_hold a us vs (initial kinds) [] [] 0.
Proof.
  induction us as [|L us IH]; intros [|w vs] [|k kinds] a N Sees F; try easy;
    inversion Sees; subst.
  inversion_clear F as [|? ? K F']. injection N as N. cbn [initial map all_hold].
  split; [|split; [|split; [assumption | now apply IH]]].
  - destruct K as [-> | [-> | ->]]; cbn; auto.
  - split; [reflexivity|]. intros i _ _. now destruct i.
Qed.

Definition good_state (toks : list Tok) (state : @residual_state Tok V KV Out) : Prop :=
  let '(outs, e, stores) := state in
  outs = outputs emb head ls toks /\ e <= length toks /\
  all_hold 0 ls ws stores toks (mapi emb toks) e /\ roomy ws stores (length toks) = true /\
  Forall no_tokens (tl stores) /\
  match stores with s :: _ => keeps_rows s = true | [] => True end.
Lemma shape_facts (R : store -> store -> Prop) stores stores' : Forall2 R stores stores' ->
  (forall s s', R s s' -> keeps_rows s' = keeps_rows s /\ (no_tokens s -> no_tokens s')) ->
  Forall no_tokens (tl stores) ->
  match stores with s :: _ => keeps_rows s = true | [] => True end ->
  Forall no_tokens (tl stores') /\
  match stores' with s :: _ => keeps_rows s = true | [] => True end.
Proof.
  intros F H T K. destruct F as [|s s' l l' Q F]; [split; [constructor | exact I]|].
  cbn [tl] in *. split; [|destruct (H _ _ Q) as [-> _]; exact K].
  clear K Q. induction F as [|x x' l l' Q F IH]; [constructor|]. inversion_clear T as [|? ? T1 T2].
  constructor; [now apply (H _ _ Q) | now apply IH].
Qed.

Lemma read_good toks ts state : good_state toks state ->
  good_state (toks ++ ts) (residual_read emb head blank budget chunk ls ws state ts).
Proof.
  destruct state as [[outs e] stores]. intros (-> & El & H & R & T & K).
  unfold residual_read. rewrite outputs_length.
  pose proof (extend_is_extend emb blank budget ls ws stores 0 e 0 [] toks ts (mapi emb toks)
    (mapi_from (length toks) emb ts)) as X. rewrite !mapi_length in X.
  specialize (X eq_refl eq_refl El H R).
  destruct (extend_residual emb blank budget ls stores (length toks) e 0 [] ts _)
    as [out stores'] eqn:Ex. destruct X as (X1 & X2 & X3); auto.
  { destruct stores; [exact I|]. intros Q. congruence. }
  { destruct stores; [exact I | now left]. }
  destruct (shape_facts same_shape stores stores' X3) as [T' K']; auto.
  { intros s s' (Q & _ & P). now split. }
  assert (R' : roomy ws stores' (length toks + length ts) = true).
  { rewrite (same_roomy ws _ _ _ X3). apply (roomy_le ws stores (length toks)); [lia | exact R]. }
  assert (Out_ : outputs emb head ls toks ++ map head out = outputs emb head ls (toks ++ ts)).
  { rewrite X1. unfold outputs. rewrite mapi_app.
    destruct (extend_caches ls (mapi emb toks) (mapi_from (0 + length toks) emb ts))
      as (new & E1 & E2).
    rewrite mapi_length in E1. cbn [Nat.add] in *. rewrite E1, E2. cbn [fst]. now rewrite map_app. }
  assert (Hs : all_hold 0 ls ws stores' (toks ++ ts) (mapi emb (toks ++ ts))
    (length toks + length ts - budget)) by (rewrite mapi_app; exact X2).
  unfold good_state. rewrite app_length. split; [exact Out_|]. split; [lia|].
  destruct chunk as [size|]; [|now repeat split].
  pose proof (forget_shape size ws stores' (length toks + length ts)) as Sh.
  destruct (shape_facts _ _ _ Sh) as [T2 K2]; auto.
  { intros s s' (Q & _ & _ & P). now split. }
  split; [now apply (forget_holds emb size ls ws stores' 0 0)|]. split; [now apply forget_roomy|].
  now split.
Qed.

Theorem residual_is_full kinds steps state : length kinds = length ls -> startable kinds ->
  Forall2 sees ws ls -> run_residual kinds steps = Some state ->
  fst (fst state) = outputs emb head ls (text steps).
Proof.
  intros N St Sees E.
  enough (G : forall st, run_residual kinds steps = Some st -> good_state (text steps) st).
  { specialize (G state E). destruct state as [[outs e] stores]. now destruct G as [-> _]. }
  clear E state. unfold residual, text. induction steps as [|s steps IH] using rev_ind.
  - intros st E. injection E as <-. unfold good_state.
    assert (F : Forall (fun k => k = Nothing \/ k = Tokens [] \/ k = Rows []) kinds /\
      Forall no_tokens (tl (initial kinds)) /\
      match initial kinds with s :: _ => keeps_rows s = true | [] => True end).
    { destruct kinds as [|k kinds]; [repeat constructor|]. destruct St as [Q P]. split; [|split].
      - constructor; [tauto|]. eapply Forall_impl; [|exact P]. cbn. tauto.
      - cbn [initial map tl]. apply Forall_map. eapply Forall_impl; [|exact P]. cbn.
        now intros ? [-> | ->].
      - cbn. now destruct Q as [-> | ->]. }
    destruct F as (F1 & F2 & F3). fold (initial kinds). split.
    { symmetry. apply length_zero_iff_nil, outputs_length. }
    split; [lia|]. split; [now apply initial_holds|]. split; [|now split].
    clear. generalize ws. induction kinds as [|k kinds IH]; intros [|w l]; cbn [roomy initial map];
      auto.
    fold (initial kinds). rewrite IH. cbn [first]. now rewrite orb_true_r.
  - intros st E. rewrite fold_left_app in *. cbn [fold_left] in *.
    destruct (fold_left (residual_step _ _ _ _ _ _ _) steps _) as [st0|]; [|easy].
    specialize (IH st0 eq_refl). destruct st0 as [[outs e] stores].
    destruct s as [ts | n]; cbn [residual_step text_step] in *.
    + injection E as <-. exact (read_good _ ts (outs, e, stores) IH).
    + destruct (roomy ws stores n) eqn:Rn; [|easy].
      injection E as <-. destruct IH as (-> & El & H & R & T & K). unfold good_state.
      rewrite outputs_firstn, firstn_length. split; [reflexivity|]. split; [lia|].
      pose proof (cut_shape n e stores) as Sh.
      destruct (shape_facts same_shape _ _ Sh) as [T' K']; auto.
      { intros s s' (Q & _ & P). now split. }
      split; [rewrite <- mapi_firstn; now apply (cut_holds emb)|]. split; [|now split].
      rewrite (same_roomy ws _ _ _ Sh).
      destruct (Nat.min_spec n (length (fold_left text_step steps []))) as [[_ ->] | [_ ->]];
        [exact Rn | exact R].
Qed.

(* Without forgetting nothing is refused. *)
Theorem nothing_refused kinds steps : chunk = None -> run_residual kinds steps <> None.
Proof.
  intros C. enough (G : exists outs e stores, run_residual kinds steps = Some (outs, e, stores) /\
    Forall (fun s => first s = 0) stores).
  { destruct G as (outs & e & stores & -> & _). easy. }
  unfold residual. induction steps as [|s steps IH] using rev_ind.
  - do 3 eexists. split; [reflexivity|]. apply Forall_map, Forall_forall. easy.
  - rewrite fold_left_app. destruct IH as (outs & e & stores & -> & F). cbn [fold_left].
    destruct s as [ts | n]; cbn [residual_step].
    + unfold residual_read. rewrite C. generalize (mapi_from (length outs) emb ts). intros hs.
      pose proof (never_grown emb blank budget ls stores (length outs) e 0 [] ts hs F) as G.
      destruct (extend_residual _ _ _ _ _ _ _ _ _ _ _) as [out stores']. now do 3 eexists.
    + rewrite never_forgotten by exact F. do 3 eexists. split; [reflexivity|].
      apply Forall_map. eapply Forall_impl; [|exact F]. now intros s.
Qed.
End Proof.

(** * For the decoder of Decoder.v *)
Section Concrete.
Variable M : machine.
Variable m : model.

Lemma layers_see : Forall2 sees (map window (blocks m)) (layers M m).
Proof.
  unfold layers. induction (blocks m) as [|b bs IH]; cbn [map]; constructor; [|exact IH].
  destruct (window b) as [w|] eqn:W; [|exact I]. now apply concrete_windowed.
Qed.
Theorem concrete_residual budget chunk tokens kept_at steps out :
  length kept_at = length (blocks m) ->
  decode_residual M m budget chunk tokens kept_at steps = Some out -> out = logits M m (text steps).
Proof.
  intros N E. unfold decode_residual in E.
  destruct (residual _ _ _ _ _ _ _ _ _) as [state|] eqn:R; [|easy]. injection E as <-.
  refine (residual_is_full _ _ _ _ _ _ _ _ _ _ _ _ layers_see R).
  - unfold kinds, layers. rewrite map_length, <- N. destruct kept_at; [reflexivity|].
    cbn. now rewrite map_length.
  - unfold kinds. destruct kept_at as [|k kept_at]; [exact I|]. cbn.
    assert (F : Forall (fun k : @kept nat row => k = Nothing \/ k = Rows [])
      (map (fun k : bool => if k then Rows [] else Nothing) kept_at)).
    { apply Forall_map, Forall_forall. intros [] _; auto. }
    destruct tokens; (split; [auto | exact F]).
Qed.
Theorem concrete_never_refused budget tokens kept_at steps :
  decode_residual M m budget None tokens kept_at steps <> None.
Proof.
  unfold decode_residual.
  pose proof (nothing_refused (embed m) (unembed M m) (no_entry m) budget None
    (layers M m) (map window (blocks m)) (kinds tokens kept_at) steps eq_refl) as H.
  now destruct (residual _ _ _ _ _ _ _ _ _).
Qed.
Theorem concrete_scheduled schedule steps :
  decode_scheduled M m schedule steps = logits M m (text steps).
Proof. apply truncated_eviction_is_exact. Qed.
Theorem concrete_full steps : fst (decode_full M m steps) = logits M m (text steps).
Proof. unfold decode_full. now rewrite truncated_is_never_seen. Qed.
End Concrete.

Print Assumptions residual_is_full.
Print Assumptions nothing_refused.
Print Assumptions concrete_residual.
Print Assumptions concrete_never_refused.
Print Assumptions concrete_scheduled.
Print Assumptions concrete_full.
