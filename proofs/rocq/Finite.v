(* Finite.v -- the decoder is total on calm models.  If the computation `calm` says true of a model
   whose tensors could be loaded, then on any orderly machine, for any text that its context holds,
   no check fires: all K/V, activations and logits are finite float32 numbers. *)
From Coq Require Import ZArith Reals List Lia Lra Bool Floats.
From Flocq Require Import Core BinarySingleNaN PrimFloat.
From Minikv Require Import Exactness Grids Binary64 Values Machine Narrow Linear Attend Settle
  Hidden Markov Machines Concrete Calm Range Turn Norm NoRaise Checks NoCheck.
From Minikv Require Decoder.
Import ListNotations.
Open Scope R_scope.

Lemma mapi_Forall {A B} (P : A -> Prop) (Q : B -> Prop) (f : nat -> A -> B) l : forall k,
  (forall i x, (k <= i < k + length l)%nat -> P x -> Q (f i x)) -> Forall P l ->
  Forall Q (mapi_from k f l).
Proof.
  induction l as [|x l IH]; intros k H F; cbn [mapi_from]; constructor.
  - apply H; [cbn [length]; lia | exact (Forall_inv F)].
  - apply IH; [|exact (Forall_inv_tail F)]. intros i y I. apply H. cbn [length]. lia.
Qed.

(* What a check answers is not a finite number. *)
Lemma raise_is_not_finite : ~ Forall single D.raise.
Proof.
  intros H. destruct (Forall_inv H) as [F _]. unfold fin, B in F.
  assert (E : is_nan (Prim2B nan) = true).
  { assert (Q : B2SF (Prim2B nan) = S754_nan) by (rewrite B2SF_Prim2B; now vm_compute).
    now destruct (Prim2B nan). }
  now destruct (Prim2B nan).
Qed.

Section Model.
Variable M : D.machine.
Hypothesis O : orderly M.
Variable m : D.model.
Hypotheses (Lm : loaded m) (Cm : calm m = true).

Lemma model_parts : calm_config (D.conf m) = true /\ calm_embedding (D.embed_tokens m) = true /\
  INR (length (D.blocks m)) <= pow2 10 /\ Forall (fun b => calm_block b = true) (D.blocks m) /\
  Forall (finite_at_most (pow2 12)) (D.norm m) /\
  Forall (Forall (finite_at_most (pow2 6))) (D.lm_head m).
Proof.
  pose proof Cm as H. unfold calm in H. rewrite !andb_true_iff in H.
  destruct H as (((((H1 & H2) & H3) & H4) & H5) & H6). repeat split; auto.
  - assert (E : V deepest = pow2 10) by (value; simpl; lra). rewrite <- E.
    apply no_longer_val; [unfold deepest; finite | rewrite E; apply up; lia | exact H3].
  - apply Forall_forall, forallb_forall. exact H4.
  - upto_of H5 12%Z.
  - revert H6. apply forallb_Forall. intros w H6. upto_of H6 6%Z.
Qed.

Definition entry_finite : D.kv_entry -> Prop :=
  Forall (fun kv => Forall single (fst kv) /\ Forall single (snd kv)).
Definition activations_finite (a : D.activations) : Prop := Forall (Forall single) (rows_of a).

Lemma blocks_ok bs : Forall ready bs -> Forall (fun b => calm_block b = true) bs -> forall hs k,
  (0 <= k)%Z -> (k + 4097 * Z.of_nat (length bs) < 2^23)%Z ->
  INR (length hs) <= V (D.context (D.conf m)) ->
  Forall (row_upto (IZR k * pow2 104)) hs ->
  Forall (fun t => Forall entry_finite (fst t) /\ Forall activations_finite (snd t))
    (D.trace_from M m bs hs) /\
  Forall (row_upto (IZR (k + 4097 * Z.of_nat (length bs)) * pow2 104))
    (run (map (D.layer_of M (D.conf m)) bs) hs).
Proof.
  destruct model_parts as (Cc & _). pose proof (loaded_conf m Lm) as Gc.
  destruct (calm_conf_of _ Gc Cc) as ([_ _ C20 _ _] & _).
  induction 1 as [|b bs Rb Rs IH]; intros Cs hs k K0 K1 Ln Hs.
  { cbn [D.trace_from map length]. rewrite Z.mul_0_r, Z.add_0_r. split; [constructor | exact Hs]. }
  inversion_clear Cs as [|? ? Cb Cs']. cbn [length] in *. rewrite Nat2Z.inj_succ in *.
  assert (Pos : forall i, (0 <= i < 0 + length hs)%nat -> INR i <= pow2 20).
  { intros i I. apply Rle_trans with (INR (length hs)); [apply le_INR; lia | lra]. }
  set (L := D.layer_of M (D.conf m) b).
  assert (Ks : Forall (entry_ok) (kvs L hs)).
  { apply (mapi_Forall (row_upto (IZR k * pow2 104))); [|exact Hs]. intros i h I [S X].
    apply (kv_ok M O (D.conf m) Gc Cc b Rb Cb); auto. exact (single_row _ _ X). }
  assert (Nk : length (kvs L hs) = length hs) by apply mapi_length.
  set (acts := mapi (fun i h => D.block_activations M (D.conf m) b i h (firstn (S i) (kvs L hs)))
    hs).
  assert (As : Forall (fun a => activations_finite a /\
    row_upto (IZR (k + 4097) * pow2 104) (D.resid_post a)) acts).
  { apply (mapi_Forall (row_upto (IZR k * pow2 104))); [|exact Hs]. intros i h I X.
    apply (block_ok M O (D.conf m) Gc Cc b Rb Cb k i h); auto; try lia.
    - now apply Forall_firstn.
    - intros E. apply (f_equal (@length _)) in E. rewrite firstn_length in E. cbn [length] in E.
      lia.
    - rewrite firstn_length. eapply Rle_trans; [apply le_INR, Nat.le_min_r|].
      rewrite Nk. exact Ln. }
  destruct (IH Cs' (map D.resid_post acts) (k + 4097)%Z) as [I J]; [lia | lia | | |].
  - unfold acts. now rewrite map_length, mapi_length.
  - apply Forall_map. eapply Forall_impl; [|exact As]. now intros a [].
  - cbn [D.trace_from map]. fold L. split.
    + constructor; [|exact I]. cbn [fst snd]. split.
      * eapply Forall_impl; [|exact Ks]. intros e. apply Forall_impl. intros kv (_ & _ & S & X).
        split; [exact S | exact (single_row _ _ X)].
      * eapply Forall_impl; [|exact As]. now intros a [].
    + replace (k + 4097 * Z.succ (Z.of_nat (length bs)))%Z
        with (k + 4097 + 4097 * Z.of_nat (length bs))%Z by lia.
      unfold run in *. cbn [fold_left]. unfold L. rewrite fwd_activations. exact J.
Qed.

Lemma embed_ok p token : row_upto (IZR 1 * pow2 104) (D.embed m p token).
Proof.
  rewrite Rmult_1_l. destruct model_parts as (Cc & Ce & _). unfold D.embed.
  set (x := nth token (D.embed_tokens m) []).
  assert (V80 : V embedding_bound = pow2 80) by (value; simpl; lra).
  assert (X : row_upto (pow2 80) x).
  { destruct (nth_in_or_default token (D.embed_tokens m) []) as [I | E].
    2: { unfold x. rewrite E. split; [|constructor]. exact (bpow_ge_0 radix2 16). }
    fold x in I. unfold calm_embedding in Ce. rewrite forallb_forall in Ce. specialize (Ce x I).
    apply andb_true_iff in Ce as [F S]. split; [now apply few_size|].
    revert S. apply forallb_Forall. intros y H. apply andb_true_iff in H as [H1 H2].
    assert (Fy : fin y) by (apply (leb_fin _ _ H1); unfold embedding_bound; finite).
    destruct (abs_val y) as [Va Fa].
    rewrite leb_val, Va, V80 in H1 by (auto; finite).
    assert (By : Rabs (V y) <= pow2 80) by (now destruct (Rle_bool_spec (Rabs (V y)) (pow2 80))).
    destruct (narrow_at_most (pow2 80) y) as [[Fn [Fm _]] _]; [apply bound_pow; lia | now split |].
    apply (eqb_eq _ _ Fn Fy) in H2. rewrite H2 in Fm. split; [|exact By].
    split; [exact Fy|]. split; [exact Fm|]. eapply Rle_lt_trans; [exact By|]. apply bpow_lt. lia. }
  assert (P : pow2 80 <= pow2 104) by (apply up; lia).
  destruct (D.embedding_scale (D.conf m)) as [scale|] eqn:Es; [|now apply (row_le (pow2 80))].
  destruct X as [S X]. split; [unfold size; now rewrite map_length|].
  unfold calm_config in Cc. rewrite Es in Cc. apply andb_true_iff in Cc as [_ Hs].
  assert (Fs : fin scale) by (apply (leb_fin _ _ Hs); finite). destruct (abs_val scale) as [Va Fa].
  assert (V20 : V 0x1p20 = pow2 20) by (value; simpl; lra).
  rewrite leb_val, Va, V20 in Hs by (auto; finite).
  assert (Bs : Rabs (V scale) <= pow2 20) by
    (now destruct (Rle_bool_spec (Rabs (V scale)) (pow2 20))).
  apply Forall_map. eapply Forall_impl; [|exact X]. intros y [[Fy _] By].
  destruct (product y scale 80 20 Fy Fs By Bs) as [Fm Bm]; [lia|].
  apply narrow_at_most; [apply bound_pow; lia|]. split; [exact Fm|].
  eapply Rle_trans; [exact Bm | apply up; lia].
Qed.

Theorem no_check_fires tokens : D.no_longer (D.context (D.conf m)) tokens = true ->
  Forall (fun t => Forall entry_finite (fst t) /\ Forall activations_finite (snd t))
    (D.trace M m tokens) /\
  Forall (Forall (at_most (pow2 46))) (D.logits M m tokens).
Proof.
  intros T. destruct model_parts as (Cc & Ce & Nb & Cb & Cn & Ch).
  pose proof (loaded_conf m Lm) as Gc. destruct (calm_conf_of _ Gc Cc) as ([G _ C20 _ _] & Be & _).
  assert (Ln : INR (length (mapi (D.embed m) tokens)) <= V (D.context (D.conf m))).
  { rewrite mapi_length. apply no_longer_val; [apply G | | exact T].
    eapply Rle_trans; [exact C20 | apply up; lia]. }
  assert (Few : (1 + 4097 * Z.of_nat (length (D.blocks m)) < 2^23)%Z).
  { rewrite INR_IZR_INZ in Nb. change (pow2 10) with (IZR (2^10)) in Nb. apply le_IZR in Nb. lia. }
  destruct (blocks_ok (D.blocks m) (loaded_blocks m Lm) Cb (mapi (D.embed m) tokens) 1)
    as [I J]; [lia | exact Few | exact Ln | |].
  { apply (mapi_Forall (fun _ => True)); [intros; apply embed_ok | apply Forall_forall; easy]. }
  split; [exact I|]. unfold D.logits, outputs, D.layers. apply Forall_map.
  eapply Forall_impl; [|exact J]. intros h [S X]. unfold D.unembed.
  destruct (norm_upto M O (D.conf m) Gc Cc (D.norm m) h Cn S (single_row _ _ X)) as [S' X'].
  exact (proj2 (linear_at_most M (D.lm_head m) _ 16 6 22 O (loaded_head m Lm) Ch ltac:(lia) S' X'
    ltac:(lia))).
Qed.
End Model.

(* From the tensors of a file: `build` makes the model that is to be calm. *)
Corollary built_no_check_fires M c e bs n head tokens : orderly M -> good c -> loadable head ->
  Forall block_loadable bs -> calm (D.build c e bs n head) = true ->
  D.no_longer (D.context c) tokens = true ->
  Forall (Forall (at_most (pow2 46))) (D.logits M (D.build c e bs n head) tokens).
Proof.
  intros O G H B C T. apply no_check_fires; auto. now apply build_loaded.
Qed.

Print Assumptions no_check_fires.
Print Assumptions built_no_check_fires.
