(* Settled.v -- `settle` keeps rows within their bounds, and settling twice is settling once, to the
   bit: the second time it finds the same grid, and leaves no -0. *)
From Coq Require Import ZArith Reals List Permutation Lia Lra Bool Floats.
From Flocq Require Import Core BinarySingleNaN PrimFloat.
From Minikv Require Import Exactness Grids Binary64 Values Machine Total GridOrder Narrow Rows
  Linear Attend Settle Hidden NoRaise Range Norm.
From Minikv Require Decoder.
Import ListNotations.
Open Scope R_scope.
#[local] Existing Instances Binary64.Hprec Binary64.Hmax.
#[local] Instance valid_exp : Valid_exp fexp64 := FLT_exp_valid (-1074) 53.
#[local] Opaque one.

(* The grid of `settle` is a power of two, or 0 for a row of zeros. *)
Definition settle_grid (xs : list float) : float := (D.power_below (D.top xs) * 0x1p-23)%float.
Lemma settle_grid_val b xs : (-149 <= b <= 128)%Z -> xs <> [] -> Forall single xs ->
  Forall (fun x => Rabs (V x) <= pow2 b) xs -> fin (settle_grid xs) /\
  ((settle_grid xs = 0%float /\ forall x, In x xs -> V x = 0) \/
   exists u, V (settle_grid xs) = pow2 u /\ (-172 <= u <= b - 23)%Z /\
     forall x, In x xs -> Rabs (V x) <= pow2 (24 + u)).
Proof.
  intros Hb Ne Xs Bs. unfold settle_grid.
  assert (Fi : Forall fin xs) by (eapply Forall_impl; [|exact Xs]; now intros x []).
  destruct (zeros_or xs) as [Z | (x1 & I1 & N1)].
  { rewrite (top_zeros xs Ne Fi Z). change (D.power_below 0 * 0x1p-23)%float with 0%float.
    split; [finite | left; now split]. }
  set (t := D.top xs).
  assert (Fa : Forall fin (map abs xs)).
  { apply Forall_map. eapply Forall_impl; [|exact Fi]. intros x. apply abs_val. }
  destruct (largest_val (map abs xs)) as [Im Lm]; [now destruct xs | exact Fa|].
  fold (D.top xs) in Im, Lm. fold t in Im, Lm.
  assert (Ft : fin t) by exact (proj1 (Forall_forall _ _) Fa t Im).
  rewrite Forall_forall in Xs, Bs.
  assert (Bt : pow2 (-149) <= V t <= pow2 b).
  { split.
    - destruct (tame_val x1) as [_ [Z | [L _]]]; [now apply single_tame, Xs | easy|].
      eapply Rle_trans; [exact L|]. destruct (abs_val x1) as [<- _]. now apply Lm, in_map.
    - apply in_map_iff in Im as (a & Ea & Ia). rewrite <- Ea. destruct (abs_val a) as [-> _].
      now apply Bs. }
  destruct (power_below_pow2 t Ft) as (k & Vp & Fp & _ & Kb).
  { split; [eapply Rle_trans; [|apply Bt] | eapply Rle_trans; [apply Bt|]]; apply up; lia. }
  assert (Kr : (-149 <= k <= b)%Z).
  { split; [apply Z.lt_succ_r, (lt_bpow radix2); unfold Z.succ | apply (le_bpow radix2)]; lra. }
  assert (V23 : V 0x1p-23 = pow2 (-23)) by (value; simpl; lra).
  destruct (mul_val (D.power_below t) 0x1p-23 Fp) as [Vg Fg]; [finite | |].
  { rewrite Vp, V23, <- bpow_plus, Rabs_pos_eq by apply bpow_ge_0. apply up. lia. }
  rewrite Vp, V23, <- bpow_plus, rnd_fix in Vg by (apply pow_format; lia).
  split; [exact Fg | right]. exists (k + -23)%Z. split; [exact Vg|]. split; [lia|]. intros x I.
  assert (L : Rabs (V x) <= V t) by (destruct (abs_val x) as [<- _]; now apply Lm, in_map).
  replace (24 + (k + -23))%Z with (k + 1)%Z by lia. lra.
Qed.

Theorem settle_at_most b xs : (-149 <= b <= 127)%Z -> Forall (at_most (pow2 b)) xs ->
  Forall (at_most (pow2 b)) (D.settle xs).
Proof.
  intros Hb Xs. destruct xs as [|x0 xs0] eqn:E; [constructor|]. rewrite <- E in *.
  destruct (settle_grid_val b xs) as [Fg G]; [lia | congruence | exact (single_row _ _ Xs) | |].
  { eapply Forall_impl; [|exact Xs]. now intros x []. }
  unfold D.settle. cbv zeta. fold (settle_grid xs). apply Forall_map, Forall_forall. intros x I.
  destruct (proj1 (Forall_forall _ _) Xs x I) as [[Fx _] Bx].
  apply narrow_at_most; [now apply bound_pow|]. destruct G as [[-> Z] | (u & Vg & U & B)].
  - rewrite to_grid_zero by auto. split; [finite|]. rewrite V_0, Rabs_R0. apply bpow_ge_0.
  - destruct (to_grid_val _ x u Fg Fx Vg) as (_ & F' & N'); [lia | |].
    { eapply Rle_trans; [now apply B | apply up; lia]. }
    split; [exact F'|]. replace b with ((b - u) + u)%Z by lia.
    apply (near_bounded _ _ _ (V x)); [lia | exact N' |]. now replace ((b - u) + u)%Z with b by lia.
Qed.

(* Settling twice is settling once, to the bit. *)
Lemma plus_minus x s : fin x -> fin s -> Rabs (V x + V s) <= pow2 1000 ->
  Rabs (rnd (V x + V s) - V s) <= pow2 1000 -> V (D.round x s) = 0 -> D.round x s = 0%float.
Proof.
  intros Fx Fs B1 B2 Z. unfold D.round in *. destruct (add_val x s Fx Fs B1) as [Va Fa].
  rewrite <- Va in B2. destruct (sub_val (x + s) s Fa Fs B2) as [Vd Fd].
  assert (E : V (x + s)%float = V s).
  { rewrite Vd in Z. destruct (Req_dec (V (x + s)%float - V s) 0) as [Q | Q]; [lra|]. exfalso.
    assert (G : on_grid (-1074) (V (x + s)%float - V s)).
    { assert (H : forall y, on_grid (-1074) (V y)).
      { intros y. pose proof (V_format y) as Fm. apply (FLT_format_generic radix2 (-1074) 53) in Fm.
        destruct Fm as [f -> _ L]. exists (Fnum f * 2 ^ (Fexp f - -1074))%Z. unfold F2R.
        rewrite mult_IZR, Rmult_assoc, <- pow2_split by lia. do 2 f_equal. lia. }
      destruct (H (x + s)%float) as [k ->], (H s) as [l ->]. exists (k - l)%Z.
      rewrite minus_IZR. ring. }
    destruct G as [k Hk].
    assert (K : k <> 0%Z) by (intros ->; rewrite Rmult_0_l in Hk; now apply Q).
    assert (L : pow2 (-1074) <= Rabs (V (x + s)%float - V s)).
    { rewrite Hk, Rabs_mult, (Rabs_pos_eq (pow2 _)), <- abs_IZR by apply bpow_ge_0.
      rewrite <- (Rmult_1_l (pow2 (-1074))) at 1. apply Rmult_le_compat_r; [apply bpow_ge_0|].
      apply IZR_le. lia. }
    assert (R : pow2 (-1074) <= Rabs (rnd (V (x + s)%float - V s))).
    { apply abs_round_ge_generic; [exact _ | apply valid_rnd_N | apply pow_format; lia | exact L]. }
    rewrite Z, Rabs_R0 in R. pose proof (bpow_gt_0 radix2 (-1074)). lra. }
  destruct (Req_dec (V s) 0) as [S0 | S0].
  - assert (X0 : V x = 0).
    { rewrite S0, Rplus_0_r in Va. rewrite Va in E. unfold rnd in E.
      rewrite round_generic in E; [lra | apply valid_rnd_N | apply V_format]. }
    destruct (V_zero x Fx X0) as [-> | ->], (V_zero s Fs S0) as [-> | ->]; try reflexivity.
    (* -0 + -0 - -0 = +0 *)
  - assert (E2 : (x + s)%float = s) by (apply same_value; auto; congruence). rewrite E2.
    apply Prim2B_inj. change (B (s - s) = B 0). rewrite B_0, B_sub.
    pose proof (Bminus_correct 53%Z 1024%Z Binary64.Hprec Binary64.Hmax rne (B s) (B s) Fs Fs) as C.
    rewrite Rminus_diag_eq, round_0, Rabs_R0 in C by (reflexivity || exact _).
    rewrite Rlt_bool_true in C by apply bpow_gt_0. destruct C as (C1 & C2 & C3).
    rewrite Rcompare_Eq in C3 by reflexivity.
    apply B2R_Bsign_inj; auto. rewrite C3. now destruct (Bsign (B s)).
Qed.

Lemma abs_near_54 r e : Rabs r <= pow2 e -> (-1074 <= e)%Z -> Rabs (rnd r) <= pow2 e.
Proof. intros H E. now apply rnd_le. Qed.
Lemma grid_no_minus_zero g x u : fin g -> fin x -> V g = pow2 u \/ V g = 0 /\ V x = 0 ->
  (-1074 <= u <= 900)%Z -> Rabs (V x) <= pow2 (51 + u) -> V (D.to_grid g x) = 0 ->
  D.to_grid g x = 0%float.
Proof.
  intros Fg Fx G U X Z. destruct G as [G | [G0 X0]].
  2: { destruct (V_zero g Fg G0) as [-> | ->], (V_zero x Fx X0) as [-> | ->]; now vm_compute. }
  pose proof (bpow_gt_0 radix2 u) as P.
  assert (B52 : Rabs (pow2 u * (3 / 2 * pow2 52)) <= pow2 (53 + u)).
  { rewrite Rabs_pos_eq by (simpl; lra). rewrite (pow2_split 53) by lia. simpl. lra. }
  destruct (mul_val g D.ROUND Fg) as [Vs Fs]; [finite | |].
  { rewrite V_ROUND, G. eapply Rle_trans; [exact B52 | apply up; lia]. }
  rewrite V_ROUND, G, grid_shift in Vs by lia.
  assert (S : Rabs (V x + V (g * D.ROUND)%float) <= pow2 (54 + u)).
  { rewrite Vs. eapply Rle_trans; [apply Rabs_triang|].
    assert (pow2 (51 + u) <= pow2 (53 + u)) by (apply up; lia).
    replace (54 + u)%Z with (1 + (53 + u))%Z by lia. rewrite (bpow_plus _ 1).
    simpl (bpow radix2 1). lra. }
  unfold D.to_grid in *. apply plus_minus; auto.
  - eapply Rle_trans; [exact S | apply up; lia].
  - unfold Rminus. eapply Rle_trans; [apply Rabs_triang|]. rewrite Rabs_Ropp.
    pose proof (abs_near_54 _ _ S ltac:(lia)) as S'.
    apply Rle_trans with (pow2 (54 + u) + pow2 (53 + u)); [rewrite Vs at 2; lra|].
    assert (pow2 (53 + u) <= pow2 (54 + u)) by (apply up; lia).
    apply Rle_trans with (pow2 (1 + (54 + u))); [|apply up; lia]. rewrite (bpow_plus _ 1).
    simpl (bpow radix2 1). lra.
Qed.
(* What `settle` puts on its grid is never -0. *)
Lemma settle_no_minus_zero xs x : Forall single xs -> In x xs ->
  V (D.to_grid (settle_grid xs) x) = 0 -> D.to_grid (settle_grid xs) x = 0%float.
Proof.
  intros S I. assert (Ne : xs <> []) by now intros ->.
  destruct (settle_grid_val 128 xs) as [Fg G]; [lia | exact Ne | exact S | |].
  { eapply Forall_impl; [|exact S]. intros y (_ & _ & L). lra. }
  pose proof (proj1 (Forall_forall _ _) S x I) as [Fx _].
  destruct G as [[-> Z] | (u & Vg & U & B)]; [intros _; apply to_grid_zero; auto|].
  apply (grid_no_minus_zero _ x u); auto; [lia|].
  eapply Rle_trans; [now apply B | apply up; lia].
Qed.
Theorem settle_twice xs : Forall single xs -> D.settle (D.settle xs) = D.settle xs.
Proof.
  intros S. destruct (settle_row xs S) as [Set_ Val]. cbv zeta in Val. fold (settle_grid xs) in Val.
  set (ys := D.settle xs) in *.
  assert (Sy : Forall single ys).
  { apply Forall_map, Forall_forall. intros x I. now apply Val. }
  transitivity (map (fun z => z) ys); [|apply map_id]. unfold D.settle at 1. cbv zeta.
  fold (settle_grid ys). apply map_ext_in. intros z I.
  destruct (settled_all ys Set_) as [Mo H]. destruct (H z I) as [Tz Ez].
  change (step_of ys) with (settle_grid ys) in Ez.
  destruct (top_val 0x1p-23 23 ys) as (Fr & _);
    [finite | value; simpl; lra | now vm_compute | lia | exact Mo |].
  change (D.power_below (D.top ys) * 0x1p-23)%float with (settle_grid ys) in Fr.
  set (y := D.to_grid (settle_grid ys) z) in *.
  assert (Fy : fin y) by (apply (proj1 (Forall_forall _ _) Fr), in_map, I).
  destruct (proj1 (Forall_forall _ _) Sy z I) as (Fz & Fm & Lt).
  pose proof (eqb_eq y z Fy Fz Ez) as Vy. destruct (Req_dec (V z) 0) as [Z | N].
  - assert (Y0 : y = 0%float) by (apply settle_no_minus_zero; auto; exact (eq_trans Vy Z)).
    rewrite Y0. change (D.narrow 0) with 0%float. unfold ys, D.settle in I. cbv zeta in I.
    fold (settle_grid xs) in I. apply in_map_iff in I as (x & <- & I).
    destruct (Val x I) as [_ E]. rewrite E in Z.
    now rewrite (settle_no_minus_zero xs x S I Z).
  - assert (R : rnd32 (V y) = V z).
    { rewrite Vy. apply round_generic; [apply valid_rnd_N | exact Fm]. }
    destruct (narrow_val y) as [En Fn].
    + pose proof (tame_moderate z Tz) as [_ B]. rewrite <- Vy in B. now split.
    + now rewrite R.
    + apply same_value; [exact Fn | exact Fz | now rewrite En | now rewrite En, R].
Qed.

Print Assumptions settle_at_most.
Print Assumptions settle_twice.
