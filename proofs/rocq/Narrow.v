(* Narrow.v -- `narrow` is IEEE 754's conversion from binary64 to binary32, ties to even; and what
   the decoder's checks tell of the numbers that pass them. *)
From Coq Require Import ZArith Reals List Permutation Lia Lra Bool Floats.
From Flocq Require Import Core BinarySingleNaN PrimFloat.
From Minikv Require Import Exactness Grids Binary64 Values Machine Total.
From Minikv Require Decoder.
Import ListNotations.
Open Scope R_scope.
#[local] Existing Instances Binary64.Hprec Binary64.Hmax.
#[local] Instance valid_exp : Valid_exp fexp64 := FLT_exp_valid (-1074) 53.
#[local] Instance prec24 : Prec_gt_0 24 := eq_refl.
#[local] Opaque one.

(** * narrow is IEEE's conversion to float32 *)
Notation fexp32 := (FLT_exp (-149) 24).
#[local] Instance valid_exp32 : Valid_exp fexp32 := FLT_exp_valid (-149) 24.
Definition rnd32 (x : R) : R := round radix2 fexp32 ZnearestE x.

Lemma Zfloor_plus z n : Zfloor (z + IZR n) = (Zfloor z + n)%Z.
Proof. apply Zfloor_imp. rewrite !plus_IZR. pose proof (Zfloor_lb z). pose proof (Zfloor_ub z). lra.
Qed.
Lemma ZnearestE_plus z n : Z.even n = true -> ZnearestE (z + IZR n) = (ZnearestE z + n)%Z.
Proof.
  intros E. unfold Znearest, Zceil. rewrite Ropp_plus_distr, <- opp_IZR, !Zfloor_plus, plus_IZR.
  replace (z + IZR n - (IZR (Zfloor z) + IZR n)) with (z - IZR (Zfloor z)) by ring.
  rewrite Z.even_add, E. destruct (Rcompare _ _); [|lia..].
  destruct (Z.even (Zfloor z)); simpl; lia.
Qed.

Lemma round_to_even u x : (-1074 <= u)%Z -> Rabs x < pow2 (51 + u) ->
  round_to (pow2 u) x = IZR (ZnearestE (x * pow2 (- u))) * pow2 u.
Proof.
  intros U X. pose proof (bpow_gt_0 radix2 u) as P.
  destruct (round_to_near u x U ltac:(lra)) as [_ Near].
  unfold round_to in *. rewrite grid_shift in * by exact U.
  set (s := pow2 u * (3 / 2 * pow2 52)) in *.
  assert (Es : s = IZR (3 * 2^51) * pow2 u) by (unfold s; simpl; lra).
  assert (Bd : pow2 (52 + u) <= x + s < pow2 (53 + u)).
  { rewrite !pow2_split in * by lia. rewrite Es. apply Rabs_lt_inv in X. simpl IZR in *. lra. }
  assert (Q : rnd (x + s) = IZR (ZnearestE (x * pow2 (- u)) + 3 * 2^51) * pow2 u).
  { unfold rnd, round, scaled_mantissa, F2R. simpl Fnum. simpl Fexp.
  rewrite (binade_cexp u) by auto.
    do 2 f_equal. rewrite <- ZnearestE_plus by reflexivity. f_equal. rewrite Es, Rmult_plus_distr_r.
    f_equal. rewrite Rmult_assoc, <- bpow_plus. replace (u + - u)%Z with 0%Z by lia. simpl. ring. }
  rewrite Q in *. rewrite plus_IZR, Rmult_plus_distr_r, <- Es in *.
  set (r := IZR (ZnearestE (x * pow2 (- u))) * pow2 u) in *.
  replace (r + s - s) with r in * by ring.
  apply rnd_grid with u; [exact U | now eexists |].
  (* |r| <= |x| + half a step, r a whole number of steps *)
  assert (Hx : Rabs (x * pow2 (- u)) <= IZR (2^51)).
  { rewrite Rabs_mult, (Rabs_pos_eq (pow2 (- u))) by apply bpow_ge_0.
    replace (IZR (2^51)) with (pow2 (51 + u) * pow2 (- u)).
    - apply Rmult_le_compat_r; [apply bpow_ge_0 | lra].
    - rewrite <- bpow_plus. replace (51 + u + - u)%Z with 51%Z by lia. reflexivity. }
  unfold r. rewrite Rabs_mult, (Rabs_pos_eq (pow2 u)) by lra.
  rewrite (pow2_split 53) by lia. apply Rmult_le_compat_r; [lra|].
  pose proof (Znearest_half (fun n => negb (Z.even n)) (x * pow2 (- u))) as Hh.
  apply Rabs_le_inv in Hh, Hx. apply Rabs_le. simpl IZR in *. lra.
Qed.

Theorem narrow_val y : moderate y -> Rabs (rnd32 (V y)) < pow2 128 ->
  V (D.narrow y) = rnd32 (V y) /\ fin (D.narrow y).
Proof.
  intros [Fy By] Ov. unfold D.narrow. rewrite (eqb_val y 0) by (auto; finite). rewrite V_0.
  destruct (Req_bool_spec (V y) 0) as [Z | N].
  { rewrite Z. unfold rnd32. now rewrite round_0 by exact _. }
  destruct By as [Z | By]; [easy|]. destruct (abs_val y) as [Va Fa]. specialize (Fa Fy).
  assert (V128 : V 0x1p128 = pow2 128) by (value; simpl; lra).
  assert (V149 : V 0x1p-149 = pow2 (-149)) by (value; simpl; lra).
  assert (V23 : V 0x1p-23 = pow2 (-23)) by (value; simpl; lra).
  assert (A : Rabs (V y) < pow2 128).
  { apply Rnot_le_lt. intros G. apply (Rlt_not_le _ _ Ov). unfold rnd32.
    apply abs_round_ge_generic; auto; [exact _ | exact _|]. apply generic_format_bpow.
    unfold FLT_exp. lia. }
  rewrite leb_val, Va, V128 by (auto; finite). rewrite Rle_bool_false by exact A.
  destruct (power_below_pow2 (abs y) Fa) as (k & Vp & Fp & _ & Kb).
  { rewrite Va. split; [eapply Rle_trans; [|apply By] | eapply Rle_trans; [apply By|]]; apply up;
    lia. }
  rewrite Va in Kb.
  assert (Kr : (-401 <= k <= 127)%Z).
  { split; apply Z.lt_succ_r, (lt_bpow radix2); unfold Z.succ.
    - apply Rle_lt_trans with (Rabs (V y)); [|apply Kb]. eapply Rle_trans; [|apply By]. apply up.
    lia.
    - apply Rle_lt_trans with (Rabs (V y)); [apply Kb | exact A]. }
  destruct (mul_val (D.power_below (abs y)) 0x1p-23) as [Vg Fg]; [exact Fp | finite | |].
  { rewrite Vp, V23, <- bpow_plus, Rabs_pos_eq by apply bpow_ge_0. apply up. lia. }
  rewrite Vp, V23, <- bpow_plus in Vg. unfold rnd in Vg.
  rewrite round_generic in Vg; [|apply valid_rnd_N | apply generic_format_bpow; unfold FLT_exp;
    lia].
  set (g := (D.power_below (abs y) * 0x1p-23)%float) in *.
  set (u := Z.max (k - 23) (-149)). set (g' := if (g <? 0x1p-149)%float then 0x1p-149%float else g).
  assert (G' : fin g' /\ V g' = pow2 u).
  { unfold g'. rewrite ltb_val, Vg, V149 by (auto; finite).
    destruct (Rlt_bool_spec (pow2 (k + -23)) (pow2 (-149))) as [L | L].
    - apply (lt_bpow radix2) in L. split; [finite|]. rewrite V149. f_equal. unfold u. lia.
    - apply (le_bpow radix2) in L. split; [exact Fg|]. rewrite Vg. f_equal. unfold u. lia. }
  destruct G' as [Fg' Vg'].
  assert (S : Rabs (V (abs y)) < pow2 (51 + u)).
  { rewrite Va, Rabs_Rabsolu. eapply Rlt_le_trans; [apply Kb | apply up; unfold u; lia]. }
  destruct (to_grid_val g' (abs y) u Fg' Fa Vg') as (Vr & Fr & _); [unfold u; lia | lra |].
  rewrite round_to_even in Vr by (auto; unfold u; lia).
  set (r := D.to_grid g' (abs y)) in *.
  assert (Er : V r = rnd32 (Rabs (V y))).
  { rewrite Vr, Va. unfold rnd32, round, scaled_mantissa, F2R. simpl Fnum. simpl Fexp.
    replace (cexp radix2 fexp32 (Rabs (V y))) with u; [reflexivity|]. unfold cexp.
    rewrite (mag_unique_pos radix2 _ (k + 1)).
    - unfold FLT_exp, u. lia.
    - replace (k + 1 - 1)%Z with k by lia. exact Kb. }
  assert (Abs : rnd32 (Rabs (V y)) = Rabs (rnd32 (V y))).
  { unfold rnd32. apply round_NE_abs. exact _. }
  rewrite leb_val, V128 by (auto; finite). rewrite Er, Abs, Rle_bool_false by exact Ov.
  rewrite ltb_val, V_0 by (auto; finite). destruct (Rlt_bool_spec (V y) 0) as [L | L].
  - destruct (opp_val r) as [-> Fo]. split; [|now apply Fo]. rewrite Er, Rabs_left by exact L.
    unfold rnd32. rewrite round_NE_opp. ring.
  - split; [|exact Fr]. rewrite Er. now rewrite Rabs_pos_eq.
Qed.

(* What `linear` and `weighted_sum` end with. *)
Theorem narrow_plus_zero a b : fin a -> fin b -> V a = V b ->
  (D.narrow a + 0)%float = (D.narrow b + 0)%float.
Proof.
  intros Fa Fb E. destruct (Req_dec (V a) 0) as [Z | N].
  - destruct (V_zero a Fa Z) as [-> | ->], (V_zero b Fb ltac:(congruence)) as [-> | ->];
    reflexivity.
  - now rewrite (same_value a b).
Qed.

(** * Checks *)
Lemma not_finite x y : (x <=? y)%float = true -> (y <=? x)%float = true -> fin y -> fin x.
Proof.
  rewrite !leb_spec, <- !B2SF_Prim2B. unfold fin, B.
  destruct (Prim2B x) as [?|[]| |? ? ? ?]; destruct (Prim2B y) as [?|[]| |[] ? ? ?]; easy.
Qed.
Lemma leb_fin x y : (abs x <=? y)%float = true -> fin y -> fin x.
Proof.
  rewrite leb_spec, abs_spec, <- !B2SF_Prim2B. unfold fin, B.
  destruct (Prim2B x) as [?|?| |? ? ? ?]; destruct (Prim2B y) as [?|?| |[] ? ? ?]; easy.
Qed.
Lemma eqb_zero_fin x : (x =? 0)%float = true -> fin x.
Proof.
  rewrite eqb_spec, <- B2SF_Prim2B. unfold fin, B. change (Prim2SF 0) with (S754_zero false).
  now destruct (Prim2B x) as [?|[]| |[] ? ? ?].
Qed.
Lemma eqb_eq x y : fin x -> fin y -> (x =? y)%float = true -> V x = V y.
Proof. intros Fx Fy H. rewrite eqb_val in H by auto. now destruct (Req_bool_spec (V x) (V y)). Qed.

Lemma within_val low high a b x : fin low -> fin high -> V low = a -> V high = b ->
  D.within low high x = true -> fin x /\ (V x = 0 \/ a <= Rabs (V x) <= b).
Proof.
  intros Fl Fh <- <-. unfold D.within. intros H. apply orb_true_iff in H as [H | H].
  - pose proof (eqb_zero_fin x H) as Fx. split; [exact Fx | left].
    rewrite <- V_0. apply eqb_eq; auto. finite.
  - apply andb_true_iff in H as [H1 H2]. pose proof (leb_fin x high H2 Fh) as Fx.
    destruct (abs_val x) as [Va Fa]. specialize (Fa Fx). split; [exact Fx | right].
    rewrite leb_val, Va in H1, H2 by auto.
    destruct (Rle_bool_spec (V low) (Rabs (V x))), (Rle_bool_spec (Rabs (V x)) (V high)); easy.
Qed.
Lemma wide_val x : D.wide x = true -> moderate x.
Proof. apply within_val; [finite | finite | value; simpl; lra | value; simpl; lra]. Qed.
Lemma V_max : V 0x1.fffffep127 = IZR (2^24 - 1) * pow2 104.
Proof. value. simpl. lra. Qed.
Lemma tame_val x : D.tame x = true ->
  fin x /\ (V x = 0 \/ pow2 (-149) <= Rabs (V x) <= IZR (2^24 - 1) * pow2 104).
Proof. apply within_val; [finite | finite | value; simpl; lra | exact V_max]. Qed.
Lemma tame_moderate x : D.tame x = true -> moderate x.
Proof.
  intros H. destruct (tame_val x H) as [F [Z | Bd]]; split; auto. right. split.
  - eapply Rle_trans; [|apply Bd]. apply up. lia.
  - eapply Rle_trans; [apply Bd|]. apply Rle_trans with (pow2 (24 + 104)); [|apply up; lia].
    rewrite pow2_split by lia. apply Rmult_le_compat_r; [apply bpow_ge_0 | apply IZR_le; lia].
Qed.
Lemma forallb_Forall {A} (f : A -> bool) (P : A -> Prop) xs :
  (forall x, f x = true -> P x) -> forallb f xs = true -> Forall P xs.
Proof. intros H E. apply Forall_forall. intros x I. apply H. rewrite forallb_forall in E.
now apply E. Qed.

Lemma of_nat_val n : fin (D.of_nat n) /\
  ((V (D.of_nat n) = INR n /\ INR n <= pow2 53) \/ V (D.of_nat n) = pow2 53).
Proof.
  induction n as [|n [Fn Vn]].
  - split; [finite|]. left. simpl. rewrite V_0. split; [reflexivity | lra].
  - cbn [D.of_nat]. assert (V1 : V 1 = 1) by (value; simpl; lra).
    assert (V53 : V 0x1p53 = pow2 53) by (value; simpl; lra).
    assert (Top : V (D.of_nat n) = pow2 53 -> (D.of_nat n + 1)%float = 0x1p53%float).
    { intros E. rewrite (same_value (D.of_nat n) 0x1p53);
      [now vm_compute | exact Fn | finite | congruence |].
      rewrite E. pose proof (bpow_gt_0 radix2 53). lra. }
    destruct Vn as [[Vn Ln] | Vn].
    + destruct (Rle_lt_or_eq_dec _ _ Ln) as [L | E].
      * assert (I : (Z.of_nat n + 1 <= 2^53)%Z).
        { rewrite INR_IZR_INZ in L. change (pow2 53) with (IZR (2^53)) in L. apply lt_IZR in L. lia.
        }
        destruct (add_val (D.of_nat n) 1) as [Va Fa]; [exact Fn | finite | |].
        { rewrite Vn, V1. pose proof (pos_INR n). rewrite Rabs_pos_eq by lra.
          apply Rle_trans with (pow2 54); [|apply up; lia]. change 54%Z with (1 + 53)%Z.
          rewrite bpow_plus. simpl in *. lra. }
        rewrite Vn, V1, INR_IZR_INZ, <- plus_IZR in Va.
        replace (IZR (Z.of_nat n + 1)) with (IZR (Z.of_nat n + 1) * pow2 0) in Va by (simpl; ring).
        unfold rnd in Va. rewrite round_generic in Va; [|apply valid_rnd_N | apply int_format; lia].
        split; [exact Fa|]. left. rewrite Va, S_INR, INR_IZR_INZ, plus_IZR. simpl (bpow radix2 0).
        split; [ring|]. change (pow2 53) with (IZR (2^53)). rewrite <- plus_IZR. now apply IZR_le.
      * rewrite Top by congruence. split; [finite | now right].
    + rewrite Top by exact Vn. split; [finite | now right].
Qed.
Lemma no_longer_val N {A} (xs : list A) : fin N -> V N <= pow2 52 -> D.no_longer N xs = true ->
  INR (length xs) <= V N.
Proof.
  intros FN L H. unfold D.no_longer in H. destruct (of_nat_val (length xs)) as [F Vn].
  rewrite leb_val in H by auto. destruct (Rle_bool_spec (V (D.of_nat (length xs))) (V N)) as
    [Q | Q]; [|easy].
  destruct Vn as [[<- _] | Vn]; [exact Q|].
  assert (pow2 52 < pow2 53) by (apply bpow_lt; lia). lra.
Qed.
Lemma longest_short {A} (xs : list A) : D.no_longer D.longest xs = true -> short xs.
Proof.
  assert (E : V D.longest = pow2 20) by (value; simpl; lra).
  intros H. unfold short. rewrite <- E. apply no_longer_val;
    [finite | rewrite E; apply up; lia | exact H].
Qed.

Lemma moderate_fin xs : Forall moderate xs -> Forall fin xs.
Proof. intros M. eapply Forall_impl; [|exact M]. now intros x []. Qed.

Print Assumptions narrow_val.
Print Assumptions narrow_plus_zero.
