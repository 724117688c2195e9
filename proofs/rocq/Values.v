(* Values.v -- from the floats of Decoder.v to the real numbers of Exactness.v and Grids.v.

   Flocq's `Prim2B` takes a primitive float to its IEEE-754 datum, and says that each operation is
   the correctly rounded one, from the axioms of Coq's FloatAxioms, which this file and all that
   need it assume.  It gives `power_below`, `round`, `to_grid` and `largest` their real values. *)
From Coq Require Import ZArith Reals List Permutation Lia Lra Bool Floats.
From Flocq Require Import Core BinarySingleNaN PrimFloat.
From Minikv Require Import Exactness Grids Binary64.
From Minikv Require Decoder.
Import ListNotations.
Open Scope R_scope.
#[local] Existing Instances Binary64.Hprec Binary64.Hmax.
#[local] Instance valid_exp : Valid_exp fexp64 := FLT_exp_valid (-1074) 53.

Module D := Minikv.Decoder.

Notation float := Coq.Floats.PrimFloat.float.
Definition B (x : float) : b64 := Prim2B x.
Definition V (x : float) : R := B2R (B x).
Definition fin (x : float) : Prop := is_finite (B x) = true.

(** * One operation at a time *)
Lemma rnd_le z e : (-1074 <= e)%Z -> Rabs z <= pow2 e -> Rabs (rnd z) <= pow2 e.
Proof.
  intros He H. apply abs_round_le_generic; [exact _ | exact _ | | exact H].
  apply generic_format_bpow. unfold FLT_exp. lia.
Qed.
Lemma no_over z : Rabs z <= pow2 1000 ->
  Rlt_bool (Rabs (round radix2 (SpecFloat.fexp 53 1024) (round_mode rne) z)) (pow2 1024) = true.
Proof.
  intros H. apply Rlt_bool_true. eapply Rle_lt_trans; [apply (rnd_le z 1000); [lia | exact H]|].
  apply bpow_lt. lia.
Qed.

Lemma B_add x y : B (x + y)%float = Bplus rne (B x) (B y).
Proof. exact (add_equiv x y). Qed.
Lemma B_sub x y : B (x - y)%float = Bminus rne (B x) (B y).
Proof. exact (sub_equiv x y). Qed.
Lemma B_mul x y : B (x * y)%float = Bmult rne (B x) (B y).
Proof. exact (mul_equiv x y). Qed.

Lemma add_val x y : fin x -> fin y -> Rabs (V x + V y) <= pow2 1000 ->
  V (x + y)%float = rnd (V x + V y) /\ fin (x + y)%float.
Proof.
  intros Fx Fy H. unfold V, fin. rewrite B_add.
  pose proof (Bplus_correct 53%Z 1024%Z Binary64.Hprec Binary64.Hmax rne (B x) (B y) Fx Fy) as C.
  rewrite no_over in C by exact H. split; apply C.
Qed.
Lemma sub_val x y : fin x -> fin y -> Rabs (V x - V y) <= pow2 1000 ->
  V (x - y)%float = rnd (V x - V y) /\ fin (x - y)%float.
Proof.
  intros Fx Fy H. unfold V, fin. rewrite B_sub.
  pose proof (Bminus_correct 53%Z 1024%Z Binary64.Hprec Binary64.Hmax rne (B x) (B y) Fx Fy) as C.
  rewrite no_over in C by exact H. split; apply C.
Qed.
Lemma mul_val x y : fin x -> fin y -> Rabs (V x * V y) <= pow2 1000 ->
  V (x * y)%float = rnd (V x * V y) /\ fin (x * y)%float.
Proof.
  intros Fx Fy H. unfold V, fin in *. rewrite B_mul.
  pose proof (Bmult_correct 53%Z 1024%Z Binary64.Hprec Binary64.Hmax rne (B x) (B y)) as C.
  rewrite no_over, Fx, Fy in C by exact H. split; apply C.
Qed.
Lemma abs_val x : V (abs x) = Rabs (V x) /\ (fin x -> fin (abs x)).
Proof.
  unfold V, fin, B. rewrite abs_equiv, B2R_Babs. split; [reflexivity|].
  intros F. now rewrite is_finite_Babs.
Qed.
Lemma opp_val x : V (- x)%float = - V x /\ (fin x -> fin (- x)%float).
Proof.
  unfold V, fin, B. rewrite opp_equiv, B2R_Bopp. split; [reflexivity|].
  intros F. now rewrite is_finite_Bopp.
Qed.
Lemma ltb_val x y : fin x -> fin y -> (x <? y)%float = Rlt_bool (V x) (V y).
Proof. intros Fx Fy. rewrite ltb_equiv. now apply Bltb_correct. Qed.
Lemma leb_val x y : fin x -> fin y -> (x <=? y)%float = Rle_bool (V x) (V y).
Proof. intros Fx Fy. rewrite leb_equiv. now apply Bleb_correct. Qed.
Lemma eqb_val x y : fin x -> fin y -> (x =? y)%float = Req_bool (V x) (V y).
Proof. intros Fx Fy. rewrite eqb_equiv. now apply Beqb_correct. Qed.

Lemma V_format x : F (V x).
Proof. exact (generic_format_B2R 53 1024 (B x)). Qed.

(* The value of a literal, by computation. *)
Lemma V_lit x : V x = SF2R radix2 (Prim2SF x).
Proof. unfold V, B, Prim2B. apply B2R_SF2B. Qed.
Lemma fin_lit x : is_finite_SF (Prim2SF x) = true -> fin x.
Proof. intros H. unfold fin, B, Prim2B. now rewrite is_finite_SF2B. Qed.
Ltac finite := apply fin_lit; vm_compute; reflexivity.
Ltac value := rewrite V_lit; match goal with |- SF2R _ (Prim2SF ?x) = _ =>
    let y := eval vm_compute in (Prim2SF x) in change (Prim2SF x) with y end;
  unfold SF2R, F2R, Fnum, Fexp, cond_Zopp.

Lemma V_zero x : fin x -> V x = 0 -> x = 0%float \/ x = (-0)%float.
Proof.
  unfold V, fin. intros Fx H. destruct (B x) as [s|s| |s m e Hm] eqn:E; try easy.
  - apply (f_equal B2Prim) in E. unfold B in E. rewrite B2Prim_Prim2B in E.
    destruct s; [right | left]; exact E.
  - simpl in H. apply eq_0_F2R in H. now destruct s.
Qed.
Lemma same_value x y : fin x -> fin y -> V x = V y -> V x <> 0 -> x = y.
Proof.
  intros Fx Fy E N. enough (H : B x = B y) by exact (Prim2B_inj _ _ H).
  unfold V in *. apply B2R_Bsign_inj; auto.
  rewrite !sign_nonzero by (auto; congruence). now rewrite E.
Qed.

Lemma V_0 : V 0 = 0.
Proof. value. reflexivity. Qed.
Lemma V_c : V 0x1.0000000000001p52 = IZR (2^52 + 1).
Proof. value. simpl. lra. Qed.
Lemma V_d : V 0x1.fffffffffffffp-1 = 1 - pow2 (-53).
Proof. value. simpl. lra. Qed.
Lemma V_ROUND : V D.ROUND = 3 / 2 * pow2 52.
Proof. value. simpl. lra. Qed.

(** * power_below *)
Lemma power_below_val y : fin y -> 0 <= V y <= pow2 900 ->
  V (D.power_below y) = power_below (V y) /\ fin (D.power_below y).
Proof.
  intros Fy H. unfold D.power_below, power_below. set (q := (y * _)%float).
  assert (L : Rabs (V y * IZR (2^52 + 1)) <= pow2 953).
  { rewrite Rabs_pos_eq by (apply Rmult_le_pos; [lra | apply IZR_le; lia]).
    change 953%Z with (900 + 53)%Z. rewrite bpow_plus. apply Rmult_le_compat; try lra.
    - apply IZR_le; lia.
    - change (pow2 53) with (IZR (2^53)). apply IZR_le. lia. }
  assert (Up : forall a b, (a <= b)%Z -> pow2 a <= pow2 b) by (intros; now apply bpow_le).
  destruct (mul_val y 0x1.0000000000001p52) as [Vq Fq]; [exact Fy | finite | |].
  { rewrite V_c. eapply Rle_trans; [exact L | apply Up; lia]. }
  fold q in Vq, Fq. rewrite V_c in Vq. rewrite <- Vq.
  assert (Q : Rabs (V q) <= pow2 953) by (rewrite Vq; apply rnd_le; [lia | exact L]).
  assert (M : Rabs (V q * (1 - pow2 (-53))) <= pow2 953).
  { rewrite Rabs_mult, (Rabs_pos_eq (1 - _)) by (simpl; lra).
    pose proof (Rabs_pos (V q)). simpl (bpow radix2 (-53)). lra. }
  destruct (mul_val q 0x1.fffffffffffffp-1) as [Vm Fm]; [exact Fq | finite | |].
  { rewrite V_d. eapply Rle_trans; [exact M | apply Up; lia]. }
  rewrite V_d in Vm. rewrite <- Vm. apply sub_val; [exact Fq | exact Fm |].
  assert (Rabs (V (q * 0x1.fffffffffffffp-1)) <= pow2 953) by (rewrite Vm; apply rnd_le;
    [lia | exact M]).
  eapply Rle_trans; [apply Rabs_triang|]. rewrite Rabs_Ropp.
  apply Rle_trans with (pow2 953 + pow2 953); [lra|].
  replace (pow2 953 + pow2 953) with (pow2 954); [apply Up; lia|].
  change 954%Z with (1 + 953)%Z. rewrite bpow_plus. simpl (bpow radix2 1). lra.
Qed.

Lemma power_below_pow2 y : fin y -> pow2 (-1001) <= V y <= pow2 900 ->
  exists k, V (D.power_below y) = pow2 k /\ fin (D.power_below y) /\
  (-1001 <= k <= 900)%Z /\ pow2 k <= V y < pow2 (k + 1).
Proof.
  intros Fy H. pose proof (bpow_gt_0 radix2 (-1001)).
  destruct (power_below_val y) as [E Fi]; [exact Fy | lra |].
  destruct (power_below_positive (V y) (V_format y) (proj1 H)) as (k & K & _ & R).
  exists k. rewrite E. repeat split; auto; try apply R.
  - apply Z.lt_succ_r, (lt_bpow radix2). unfold Z.succ. eapply Rle_lt_trans; [apply H | apply R].
  - apply (le_bpow radix2). eapply Rle_trans; [apply R | apply H].
Qed.

(** * round and to_grid *)
Lemma grid_shift u : (-1074 <= u)%Z -> rnd (pow2 u * (3 / 2 * pow2 52)) = pow2 u *
  (3 / 2 * pow2 52).
Proof.
  intros U. replace (pow2 u * _) with (IZR (3 * 2^51) * pow2 u) by (simpl; lra).
  apply round_generic; [apply valid_rnd_N | apply grid_format; lia].
Qed.

Lemma round_val x s u : fin s -> fin x -> V s = pow2 u * (3 / 2 * pow2 52) ->
  (-1074 <= u <= 900)%Z ->
  Rabs (V x) <= pow2 (51 + u) ->
  V (D.round x s) = round_to (pow2 u) (V x) /\ fin (D.round x s) /\ near u (V (D.round x s)) (V x).
Proof.
  intros Fs Fx S U X. enough (H : V (D.round x s) = round_to (pow2 u) (V x) /\ fin (D.round x s)).
  { destruct H as [E Fi]. repeat split; auto; rewrite E; now apply round_to_near. }
  assert (Up : forall a b, (a <= b)%Z -> pow2 a <= pow2 b) by (intros; now apply bpow_le).
  unfold D.round, round_to. rewrite grid_shift, <- S by lia.
  assert (A : Rabs (V x + V s) <= pow2 (54 + u)).
  { eapply Rle_trans; [apply Rabs_triang|]. pose proof (bpow_gt_0 radix2 u).
    rewrite S, (Rabs_pos_eq (_ * _)) by (simpl; lra). rewrite !pow2_split in * by lia.
    simpl in *. lra. }
  destruct (add_val x s) as [Va Fa]; [exact Fx | exact Fs | |].
  { eapply Rle_trans; [exact A | apply Up; lia]. }
  rewrite <- Va. apply sub_val; [exact Fa | exact Fs |].
  assert (A' : Rabs (V (x + s)) <= pow2 (54 + u)) by (rewrite Va; apply rnd_le; [lia | exact A]).
  eapply Rle_trans; [apply Rabs_triang|]. rewrite Rabs_Ropp. pose proof (bpow_gt_0 radix2 u).
  rewrite S, (Rabs_pos_eq (_ * _)) by (simpl; lra).
  apply Rle_trans with (pow2 (55 + u)); [|apply Up; lia].
  rewrite !pow2_split in * by lia. simpl in *. lra.
Qed.

Lemma to_grid_val g x u : fin g -> fin x -> V g = pow2 u -> (-1074 <= u <= 900)%Z ->
  Rabs (V x) <= pow2 (51 + u) ->
  V (D.to_grid g x) = round_to (pow2 u) (V x) /\ fin (D.to_grid g x) /\
  near u (V (D.to_grid g x)) (V x).
Proof.
  intros Fg Fx G U X. pose proof (bpow_gt_0 radix2 u).
  destruct (mul_val g D.ROUND) as [Vs Fs]; [exact Fg | finite | |].
  { rewrite V_ROUND, G, Rabs_pos_eq by (simpl; lra).
    apply Rle_trans with (pow2 (53 + u)); [|apply bpow_le; lia].
    rewrite !pow2_split by lia. simpl. lra. }
  rewrite V_ROUND, G, grid_shift in Vs by lia. now apply round_val.
Qed.

Lemma to_grid_zero x : fin x -> V x = 0 -> D.to_grid 0 x = 0%float.
Proof. intros Fx H. now destruct (V_zero x Fx H) as [-> | ->]. Qed.

Lemma up a b : (a <= b)%Z -> pow2 a <= pow2 b.
Proof. intros. now apply bpow_le. Qed.

(** * largest *)
Lemma neg_infinity_least x : fin x -> (neg_infinity <? x)%float = true.
Proof.
  unfold fin, B. intros Fx. rewrite ltb_spec, <- (B2SF_Prim2B x).
  change (Prim2SF neg_infinity) with (S754_infinity true).
  now destruct (Prim2B x) as [s|s| |s m e H].
Qed.
Lemma largest_from xs : forall m, fin m -> Forall fin xs ->
  let r := fold_left (fun m x => if (m <? x)%float then x else m) xs m in
  (r = m \/ In r xs) /\ V m <= V r /\ forall x, In x xs -> V x <= V r.
Proof.
  induction xs as [|x xs IH]; intros m Fm Fx; simpl; [repeat split; auto; [lra | easy]|].
  inversion_clear Fx as [|? ? Fx' Fxs]. rewrite (ltb_val m x Fm Fx').
  destruct (Rlt_bool_spec (V m) (V x)) as [L|L].
  - destruct (IH x Fx' Fxs) as ([-> | I] & L1 & L2).
    + repeat split; auto; [lra|]. intros y [<- | Hy]; [lra | auto].
    + repeat split; auto; [lra|]. intros y [<- | Hy]; [lra | auto].
  - destruct (IH m Fm Fxs) as (I & L1 & L2).
    repeat split; [tauto | lra |]. intros y [<- | Hy]; [lra | auto].
Qed.
Lemma largest_val xs : xs <> [] -> Forall fin xs ->
  In (D.largest xs) xs /\ forall x, In x xs -> V x <= V (D.largest xs).
Proof.
  destruct xs as [|x xs]; [easy|]. intros _ F. inversion_clear F as [|? ? Fx Fxs].
  unfold D.largest. simpl. rewrite neg_infinity_least by exact Fx.
  destruct (largest_from xs x Fx Fxs) as ([E | I] & L1 & L2).
  - split; [left; now rewrite E|]. intros y [<- | Hy]; auto.
  - split; [now right|]. intros y [<- | Hy]; auto.
Qed.

Print Assumptions power_below_val.
Print Assumptions to_grid_val.
Print Assumptions largest_val.
