(* Linear.v -- Exact.linear and rms_norm: on any two machines, in whatever order they add, the same
   bits.  It assumes of the machines that they are `orderly`, and of weights that they went through
   `weight`, which is shown to put them on their grids. *)
From Coq Require Import ZArith Reals List Permutation Lia Lra Bool Floats.
From Flocq Require Import Core BinarySingleNaN PrimFloat.
From Minikv Require Import Exactness Grids Binary64 Values Machine Total GridOrder Narrow Rows.
From Minikv Require Decoder.
Import ListNotations.
Open Scope R_scope.
#[local] Existing Instances Binary64.Hprec Binary64.Hmax.
#[local] Instance valid_exp : Valid_exp fexp64 := FLT_exp_valid (-1074) 53.
#[local] Opaque one.

(* A matrix that can be loaded holds finite float32 numbers; what `weight` leaves of one. *)
Definition loadable (m : list (list float)) : Prop := Forall (fun w => forallb D.tame w = true) m.
Definition prepared (m : list (list float)) : Prop := Forall (top_row 21) m.
Lemma weight_prepared m : loadable m -> prepared (D.prepare m).
Proof.
  intros L. apply Forall_map. eapply Forall_impl; [|exact L]. intros w T. cbv beta in T.
  apply (top_val 0x1p-20 20 w); [finite | value; simpl; lra | now vm_compute | lia |].
  exact (forallb_Forall _ _ _ tame_moderate T).
Qed.

Section Two.
Variables M N : D.machine.
Hypotheses (OM : orderly M) (ON : orderly N).

(** * Exact.linear *)
Lemma grid32_same x : Forall moderate x -> short x -> x <> [] ->
  D.grid M D.bits32 x = D.grid N D.bits32 x.
Proof.
  intros Mo K Ne. destruct bits32_val as (Fs & Vs & P).
  apply (grid_same M N 32); auto; lia.
Qed.
Lemma grid29_same x : Forall moderate x -> short x -> x <> [] ->
  D.grid M D.bits29 x = D.grid N D.bits29 x.
Proof.
  intros Mo K Ne. destruct bits29_val as (Fs & Vs & P).
  apply (grid_same M N 29); auto; lia.
Qed.

Lemma dot_same u xs ws : bfits u (pairs xs ws) -> fin (D.dot M xs ws) /\ fin (D.dot N xs ws) /\
  V (D.dot M xs ws) = V (D.dot N xs ws).
Proof.
  intros F. destruct (dot_exact M u xs ws OM F) as [F1 V1], (dot_exact N u xs ws ON F) as [F2 V2].
  repeat split; auto. congruence.
Qed.
Lemma plus_zero_same a b : fin a -> fin b -> V a = V b -> (a + 0)%float = (b + 0)%float.
Proof.
  intros Fa Fb E. destruct (Req_dec (V a) 0) as [Z | Nz]; [|now rewrite (same_value a b)].
  destruct (V_zero a Fa Z) as [-> | ->], (V_zero b Fb ltac:(congruence)) as [-> | ->]; reflexivity.
Qed.

Theorem linear_same ws x : prepared ws -> D.linear M ws x = D.linear N ws x.
Proof.
  intros P. unfold D.linear. destruct (forallb D.tame x && D.no_longer D.longest x) eqn:G;
    [|reflexivity].
  apply andb_true_iff in G as [T K]. apply longest_short in K.
  pose proof (forallb_Forall _ _ _ tame_moderate T) as Mo.
  assert (E : map (D.to_grid (D.grid M D.bits32 x)) x = map (D.to_grid (D.grid N D.bits32 x)) x).
  { destruct x as [|x0 x']; [reflexivity|]. now rewrite grid32_same. }
  rewrite <- E. set (x' := map _ x). apply map_ext_in. intros w I.
  assert (X : l1_row 32 x').
  { destruct bits32_val as (Fs & Vs & Pl). apply (l1_val M 32); auto. lia. }
  destruct (rows_fit 32 21 x' w) as [u F];
    [lia | exact X | exact (proj1 (Forall_forall _ _) P w I)|].
  destruct (dot_same u x' w F) as (F1 & F2 & E12). now apply narrow_plus_zero.
Qed.

(** * Exact.mean_square *)
Lemma zero_over z k e : fin z -> V z = 0 -> fin k -> V k <> 0 -> fin e -> V e <> 0 ->
  (z / k + e)%float = e.
Proof.
  intros Fz Vz Fk Vk Fe Ve. apply Prim2B_inj. change (B (z / k + e) = B e).
  rewrite B_add. assert (Q : exists s, B (z / k) = B754_zero s).
  { unfold B. rewrite div_equiv. unfold V, fin, B in *.
    destruct (Prim2B k) as [?|?| |sk mk ek Hk]; try easy.
    destruct (V_zero z Fz Vz) as [-> | ->].
    - replace (Prim2B 0) with (B754_zero false : b64) by (symmetry; exact B_0). now eexists.
    - assert (E : Prim2B (-0) = (B754_zero true : b64)).
      { apply B2SF_inj. rewrite B2SF_Prim2B. now vm_compute. }
      rewrite E. now eexists. }
  destruct Q as [s ->]. unfold V, fin in *. destruct (B e) as [?|?| |se me ee He]; try easy.
Qed.

Lemma sum_same u xs : (-1074 <= u <= 970)%Z -> Forall fin xs ->
  fits u (map (fun x => (x, 1)) (map V xs)) ->
  fin (D.sum M xs) /\ fin (D.sum N xs) /\ V (D.sum M xs) = V (D.sum N xs).
Proof.
  intros U Fi F. destruct (sum_val M u xs OM U Fi F) as [F1 V1],
    (sum_val N u xs ON U Fi F) as [F2 V2].
  repeat split; auto. congruence.
Qed.

Lemma mean_square_same x e : fin e -> V e <> 0 -> x <> [] ->
  (D.mean_square M x + e)%float = (D.mean_square N x + e)%float.
Proof.
  intros Fe Ve Ne. unfold D.mean_square. set (sq := map _ x).
  destruct (forallb D.wide sq && D.no_longer D.longest x) eqn:G; [|reflexivity].
  apply andb_true_iff in G as [T K]. apply longest_short in K.
  pose proof (forallb_Forall _ _ _ wide_val T) as Mo. pose proof (moderate_fin _ Mo) as Fi.
  set (g := (D.power_below (D.largest sq) * 0x1p-32)%float).
  assert (Pos : map V sq = map Rabs (map V sq)).
  { unfold sq in *. rewrite !map_map. apply map_ext_in. intros a I. symmetry. apply Rabs_pos_eq.
    assert (Fa : fin (a * a)%float) by (apply (proj1 (Forall_forall _ _) Fi);
      now apply (in_map (fun x => (x * x)%float))).
    unfold V, fin in *. rewrite B_mul in *.
    destruct (B a) as [?|?| |s m ee H]; try easy; [simpl; lra|].
    pose proof (Bmult_correct 53%Z 1024%Z Binary64.Hprec Binary64.Hmax rne (B754_finite s m ee H)
      (B754_finite s m ee H)) as C.
    destruct (Rlt_bool _ _).
    - destruct C as (-> & _). apply round_ge_generic;
      [exact _ | apply valid_rnd_N | apply generic_format_0|].
      apply Rle_0_sqr.
    - exfalso. destruct (Bmult rne _ _) as [?|?| |? ? ? ?] eqn:Q; try easy; simpl in C; destruct s;
      easy. }
  destruct (largest_row 0x1p-32 32 sq sq) as (Fr & u & U & R); auto;
    [finite | value; simpl; lra | lia |]. fold g in Fr, R.
  destruct (sum_same u (map (D.to_grid g) sq)) as (F1 & F2 & E); [lia | exact Fr | |].
  { apply (fits_count 20 33 u); [lia | |now apply Forall_map].
    rewrite !map_length. unfold sq. rewrite map_length. exact K. }
  destruct (Req_dec (V (D.sum M (map (D.to_grid g) sq))) 0) as [Z | Nz];
    [|now rewrite (same_value _ _ F1 F2 E Nz)].
  assert (Lk : fin (D.of_nat (length x)) /\ V (D.of_nat (length x)) <> 0).
  { destruct (of_nat_val (length x)) as [Fk [[Vk _] | Vk]]; split; auto; rewrite Vk.
    - destruct x; [easy|]. apply not_0_INR. easy.
    - pose proof (bpow_gt_0 radix2 53). lra. }
  destruct Lk as [Fk Vk]. rewrite !zero_over; auto. congruence.
Qed.

Lemma rms_norm_same c w x : fin (D.rms_norm_eps c) -> V (D.rms_norm_eps c) <> 0 ->
  D.rms_norm M c w x = D.rms_norm N c w x.
Proof.
  intros Fe Ve. unfold D.rms_norm. destruct w as [w|]; [|reflexivity].
  destruct x as [|a x]; [reflexivity|].
  now rewrite mean_square_same.
Qed.

End Two.

Print Assumptions weight_prepared.
Print Assumptions linear_same.
Print Assumptions rms_norm_same.
