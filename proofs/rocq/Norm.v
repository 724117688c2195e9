(* Norm.v -- RMSNorm of finite float32 numbers is finite, whatever their size: its check is true,
   and its row is at most the weights times four square roots of the width. *)
From Coq Require Import ZArith Reals List Permutation Lia Lra Bool Floats.
From Flocq Require Import Core BinarySingleNaN PrimFloat.
From Minikv Require Import Exactness Grids Binary64 Values Machine Total GridOrder Narrow Rows
  Linear Attend Settle Hidden NoRaise Range.
From Minikv Require Decoder.
Import ListNotations.
Open Scope R_scope.
#[local] Existing Instances Binary64.Hprec Binary64.Hmax.
#[local] Instance valid_exp : Valid_exp fexp64 := FLT_exp_valid (-1074) 53.
#[local] Opaque one.

Lemma pow_format e : (-1074 <= e)%Z -> generic_format radix2 fexp64 (pow2 e).
Proof. intros E. apply generic_format_bpow. unfold FLT_exp. lia. Qed.
Lemma rnd_ge_pow e r : (-1074 <= e)%Z -> pow2 e <= r -> pow2 e <= rnd r.
Proof. intros E H. rewrite <- (rnd_fix (pow2 e)) by now apply pow_format. now apply rnd_mono. Qed.
Lemma near_nonneg u r x : near u r x -> 0 <= x -> 0 <= r.
Proof.
  intros [[k ->] N] X. pose proof (bpow_gt_0 radix2 u) as P. apply Rabs_le_inv in N.
  assert (K : -1 < IZR k) by nra. apply lt_IZR in K.
  apply Rmult_le_pos; [apply IZR_le; lia | lra].
Qed.
Lemma wide_intro x : fin x -> (V x = 0 \/ pow2 (-400) <= Rabs (V x) <= pow2 400) ->
  D.wide x = true.
Proof.
  intros Fx H. unfold D.wide, D.within. destruct (abs_val x) as [Va Fa]. specialize (Fa Fx).
  assert (Vl : V 0x1p-400 = pow2 (-400)) by (value; simpl; lra).
  assert (Vh : V 0x1p400 = pow2 400) by (value; simpl; lra).
  rewrite eqb_val, !leb_val, Va, Vl, Vh, V_0 by (auto; finite). apply orb_true_iff.
  destruct H as [Z | [L R]]; [left; now apply Req_bool_true | right].
  now rewrite !Rle_bool_true.
Qed.
Lemma sqrt_val x : fin x -> 0 < V x ->
  V (sqrt x) = rnd (R_sqrt.sqrt (V x)) /\ fin (sqrt x).
Proof.
  intros Fx P. unfold V, fin, B in *. rewrite sqrt_equiv.
  destruct (Bsqrt_correct 53%Z 1024%Z Binary64.Hprec Binary64.Hmax rne (Prim2B x)) as (E & Fi & _).
  split; [exact E|]. refine (eq_trans Fi _). clear E Fi.
  destruct (Prim2B x) as [s|s| |s m e H]; try easy.
  destruct s; [|reflexivity]. exfalso. simpl in P.
  pose proof (F2R_lt_0 radix2 (Float radix2 (Z.neg m) e) ltac:(reflexivity)) as L. simpl in L. lra.
Qed.
Lemma sqrt_pow e : R_sqrt.sqrt (pow2 (2 * e)) = pow2 e.
Proof.
  replace (2 * e)%Z with (e + e)%Z by lia. rewrite bpow_plus. apply sqrt_square, bpow_ge_0.
Qed.
Lemma single_square x : single x -> D.wide (x * x)%float = true /\ fin (x * x)%float /\
  0 <= V (x * x)%float /\ V (x * x)%float = rnd (V x * V x) /\
  (V x <> 0 -> V (x * x)%float <> 0).
Proof.
  intros S. destruct (tame_val x (single_tame x S)) as [Fx B].
  pose proof (proj2 (proj2 S)) as Lt.
  assert (U : Rabs (V x * V x) <= pow2 256).
  { rewrite Rabs_mult. change 256%Z with (128 + 128)%Z. rewrite bpow_plus.
    apply Rmult_le_compat; try apply Rabs_pos; lra. }
  destruct (mul_val x x Fx Fx) as [Vm Fm]; [eapply Rle_trans; [exact U | apply up; lia]|].
  assert (P : 0 <= V x * V x) by apply Rle_0_sqr. rewrite Rabs_pos_eq in U by exact P.
  assert (P' : 0 <= rnd (V x * V x)) by (rewrite <- rnd_0; now apply rnd_mono).
  assert (L : V x <> 0 -> pow2 (-298) <= rnd (V x * V x)).
  { intros N. destruct B as [Z | [B _]]; [easy|]. apply rnd_ge_pow; [lia|].
    rewrite <- (Rabs_pos_eq (V x * V x)), Rabs_mult by exact P.
    change (-298)%Z with (-149 + -149)%Z. rewrite bpow_plus.
    pose proof (bpow_ge_0 radix2 (-149)). apply Rmult_le_compat; lra. }
  split; [|split; [exact Fm|split; [now rewrite Vm|split; [exact Vm|]]]].
  - apply wide_intro; [exact Fm|]. rewrite Vm. destruct (Req_dec (V x) 0) as [Z | N].
    + left. rewrite Z, Rmult_0_l. apply rnd_0.
    + right. rewrite Rabs_pos_eq by exact P'. split.
      * eapply Rle_trans; [|now apply L]. apply up. lia.
      * rewrite <- (rnd_fix (pow2 400)) by (apply pow_format; lia). apply rnd_mono.
        eapply Rle_trans; [exact U | apply up; lia].
  - intros N. rewrite Vm. pose proof (L N). pose proof (bpow_gt_0 radix2 (-298)). lra.
Qed.

(** * The root of the mean square
   It is not 0, and no number of the row is much larger than it. *)
Section Row.
Variable M : D.machine.
Hypothesis O : orderly M.
Variables (eps : float) (n : Z) (xs : list float).
Hypotheses (Fe : fin eps) (Be : pow2 (-100) <= V eps <= pow2 100) (N : (0 <= n <= 20)%Z)
  (Sx : size n xs) (Xs : Forall single xs) (Ne : xs <> []).
Let root := sqrt (D.mean_square M xs + eps).

Lemma count_val : fin (D.of_nat (length xs)) /\ V (D.of_nat (length xs)) = INR (length xs) /\
  1 <= INR (length xs) <= pow2 n.
Proof.
  pose proof (short_longest xs (size_short n xs (proj2 N) Sx)) as L. unfold D.no_longer in L.
  destruct (of_nat_val (length xs)) as [F [[E _] | E]]; (split; [exact F|]); split.
  - exact E.
  - split; [|exact Sx]. change 1 with (INR 1). apply le_INR. destruct xs; [easy|simpl; lia].
  - exfalso. rewrite leb_val, E in L by (auto; finite).
    assert (V D.longest = pow2 20) as V20 by (value; simpl; lra). rewrite V20 in L.
    rewrite Rle_bool_false in L; [easy | apply bpow_lt; lia].
  - split; [|exact Sx]. change 1 with (INR 1). apply le_INR. destruct xs; [easy|simpl; lia].
Qed.

Lemma squares_pass : forallb D.wide (map (fun x => x * x)%float xs) &&
  D.no_longer D.longest xs = true.
Proof.
  rewrite (short_longest xs (size_short n xs (proj2 N) Sx)), andb_true_r, forallb_map.
  apply forallb_forall. intros x I. apply single_square. now apply (proj1 (Forall_forall _ _) Xs).
Qed.

Lemma root_val : fin root /\ exists s, (-400 <= s <= 400)%Z /\ pow2 s <= V root /\
  forall x, In x xs -> Rabs (V x) <= pow2 (s + (n + 4) / 2).
Proof.
  assert (X : forall x, In x xs -> single x) by now apply Forall_forall.
  unfold root, D.mean_square. rewrite squares_pass. cbv zeta.
  set (sq := map (fun x => x * x)%float xs).
  destruct count_val as (Fl & Vl & Bl).
  destruct (zeros_or xs) as [Z | (x0 & I0 & N0)].
  { (* a row of zeros: the root of eps *)
    assert (E : sq = repeat 0%float (length xs)).
    { unfold sq. clear - Z X. induction xs as [|x l IH]; [reflexivity|].
      cbn [map length repeat]. f_equal.
      - destruct (V_zero x (proj1 (X x (or_introl eq_refl))) (Z x (or_introl eq_refl))) as [-> |
          ->];
          reflexivity.
      - apply IH; intros y I; [apply X | apply Z]; now right. }
    assert (T : map (D.to_grid (D.power_below (D.largest sq) * 0x1p-32)) sq
                = repeat 0%float (length xs)).
    { rewrite E. destruct xs as [|x l]; [easy|]. cbn [length]. rewrite largest_zeros.
      change (D.power_below 0 * 0x1p-32)%float with 0%float. now rewrite map_repeat. }
    rewrite T. destruct (sum_zeros M (length xs) O) as [Fs Vs].
    rewrite zero_over; auto; [| rewrite Vl; lra | pose proof (bpow_gt_0 radix2 (-100)); lra].
    pose proof (bpow_gt_0 radix2 (-100)) as P. destruct (sqrt_val eps Fe) as [Vr Fr]; [lra|].
    split; [exact Fr|]. exists (-50)%Z. split; [lia|]. split.
    - rewrite Vr. apply rnd_ge_pow; [lia|]. rewrite <- sqrt_pow. apply sqrt_le_1_alt. apply Be.
    - intros x I. rewrite (Z x I), Rabs_R0. apply bpow_ge_0. }
  assert (Sq : forall y, In y sq -> fin y /\ 0 <= V y).
  { intros y I. unfold sq in I. apply in_map_iff in I as (x & <- & I).
    destruct (single_square x (X x I)) as (_ & F & P & _). now split. }
  assert (Fi : Forall fin sq) by (apply Forall_forall; intros y I; now apply Sq).
  destruct (largest_val sq) as [Im Lm]; [unfold sq; destruct xs; easy | exact Fi|].
  set (m := D.largest sq) in *. destruct (Sq m Im) as [Fm Pm].
  assert (Bm : pow2 (-400) <= V m <= pow2 400).
  { assert (W : D.wide m = true).
    { unfold sq in Im. apply in_map_iff in Im as (x & Ex & I). unfold m in *. rewrite <- Ex.
      now apply single_square, X. }
    destruct (wide_val m W) as [_ [Zm | B]]; [|now rewrite Rabs_pos_eq in B].
    exfalso. destruct (single_square x0 (X x0 I0)) as (_ & _ & P0 & _ & Nz).
    apply (Nz N0). apply Rle_antisym; [|exact P0]. rewrite <- Zm. apply Lm.
    unfold sq. now apply (in_map (fun x => x * x)%float). }
  destruct (power_below_pow2 m Fm) as (p & Vp & Fp & _ & Kp).
  { split; [eapply Rle_trans; [|apply Bm] | eapply Rle_trans; [apply Bm|]]; apply up; lia. }
  assert (Pr : (-401 <= p <= 400)%Z).
  { split; [apply Z.lt_succ_r, (lt_bpow radix2); unfold Z.succ | apply (le_bpow radix2)]; [|lra].
    apply Rle_lt_trans with (V m); [|lra]. eapply Rle_trans; [|apply Bm]. apply up. lia. }
  assert (V32 : V 0x1p-32 = pow2 (-32)) by (value; simpl; lra).
  set (g := (D.power_below m * 0x1p-32)%float).
  destruct (mul_val (D.power_below m) 0x1p-32 Fp) as [Vg Fg]; [finite | |].
  { rewrite Vp, V32, <- bpow_plus, Rabs_pos_eq by apply bpow_ge_0. apply up. lia. }
  fold g in Vg, Fg. rewrite Vp, V32, <- bpow_plus, rnd_fix in Vg by (apply pow_format; lia).
  assert (T : forall y, In y sq -> fin (D.to_grid g y) /\ near (p + -32) (V (D.to_grid g y)) (V y)
    /\ Rabs (V (D.to_grid g y)) <= pow2 (33 + (p + -32))).
  { intros y I. destruct (Sq y I) as [Fy Py]. pose proof (Lm y I) as Ly.
    assert (By : Rabs (V y) <= pow2 (33 + (p + -32))).
    { rewrite Rabs_pos_eq by exact Py. replace (33 + (p + -32))%Z with (p + 1)%Z by lia. lra. }
    destruct (to_grid_val g y (p + -32) Fg Fy Vg) as (_ & F' & N'); [lia | |].
    { eapply Rle_trans; [exact By | apply up; lia]. }
    split; [exact F'|]. split; [exact N'|]. apply (near_bounded 33 _ _ (V y)); auto; lia. }
  destruct (sum_val M (p + -32) (map (D.to_grid g) sq) O) as [Fs Vs]; [lia | | |].
  { apply Forall_map, Forall_forall. intros y I. now apply T. }
  { apply (fits_count 20 33 (p + -32)); [lia | |].
    - rewrite !map_length. unfold sq. rewrite map_length.
      eapply Rle_trans; [exact Sx | apply up; lia].
    - apply Forall_map, Forall_map, Forall_forall. intros y I. destruct (T y I) as (_ & [G _] & B).
      now split. }
  set (S := D.sum M _) in *.
  assert (Sl : pow2 (p - 1) <= V S).
  { rewrite Vs. apply Rle_trans with (V (D.to_grid g m)).
    - destruct (T m Im) as (_ & [_ Nm] & _). apply Rabs_le_inv in Nm.
      assert (E1 : pow2 p = 2 * pow2 (p - 1)).
      { replace p with (1 + (p - 1))%Z at 1 by lia. rewrite bpow_plus. simpl (bpow radix2 1). lra. }
      assert (E2 : pow2 (p + -32) <= pow2 (p - 1)) by (apply up; lia). lra.
    - apply sum_ge_each; [|now apply in_map]. intros y I. apply in_map_iff in I as (z & <- & I).
      destruct (T z I) as (_ & Nz & _). apply (near_nonneg _ _ _ Nz). now apply Sq. }
  assert (Su : V S <= pow2 (p + 21)).
  { rewrite Vs, map_map. eapply Rle_trans; [apply Rle_abs|].
    eapply Rle_trans; [apply (sum_le_count _ _ (pow2 (33 + (p + -32))))|].
    - intros y I. now apply T.
    - unfold sq. rewrite map_length. replace (p + 21)%Z with (20 + (33 + (p + -32)))%Z by lia.
      rewrite (bpow_plus _ 20). apply Rmult_le_compat_r; [apply bpow_ge_0|].
      eapply Rle_trans; [exact Sx | apply up; lia]. }
  pose proof (bpow_gt_0 radix2 (p - 1)) as Pp.
  set (len := D.of_nat (length xs)) in *.
  assert (Inv : / pow2 n <= / V len <= 1).
  { rewrite Vl. split.
    - apply Rinv_le; [lra | apply Bl].
    - rewrite <- Rinv_1. apply Rinv_le; [lra | apply Bl]. }
  assert (Pn : 0 < / pow2 n) by apply Rinv_0_lt_compat, bpow_gt_0.
  assert (Q : pow2 (p - 1 - n) <= V S / V len <= pow2 (p + 21)).
  { unfold Rdiv. split.
    - unfold Zminus at 1. rewrite bpow_plus, bpow_opp. apply Rmult_le_compat; lra.
    - rewrite <- (Rmult_1_r (pow2 (p + 21))). apply Rmult_le_compat; lra. }
  destruct (div_val S len Fs Fl) as [Vd Fd]; [rewrite Vl; lra | |].
  { pose proof (bpow_gt_0 radix2 (p - 1 - n)). rewrite Rabs_pos_eq by lra.
    eapply Rle_trans; [apply Q | apply up; lia]. }
  assert (D1 : pow2 (p - 1 - n) <= V (S / len)%float) by (rewrite Vd; apply rnd_ge_pow;
    [lia | lra]).
  assert (D2 : V (S / len)%float <= pow2 (p + 21)).
  { rewrite Vd, <- (rnd_fix (pow2 (p + 21))) by (apply pow_format; lia). apply rnd_mono. lra. }
  pose proof (bpow_gt_0 radix2 (-100)) as Pe. pose proof (bpow_gt_0 radix2 (p - 1 - n)) as Pq.
  assert (U500 : pow2 (p + 21) <= pow2 500 /\ pow2 100 <= pow2 500) by (split; apply up; lia).
  assert (E501 : pow2 501 = 2 * pow2 500).
  { change 501%Z with (1 + 500)%Z. rewrite bpow_plus. simpl (bpow radix2 1). lra. }
  destruct (add_val (S / len)%float eps Fd Fe) as [Va Fa].
  { rewrite Rabs_pos_eq by lra. apply Rle_trans with (pow2 501); [lra | apply up; lia]. }
  assert (A1 : pow2 (p - 1 - n) <= V (S / len + eps)%float).
  { rewrite Va. apply rnd_ge_pow; [lia | lra]. }
  destruct (sqrt_val (S / len + eps)%float Fa) as [Vr Fr]; [lra|]. split; [exact Fr|].
  set (q := (p - 1 - n)%Z) in *.
  assert (Dq : (2 * (q / 2) <= q < 2 * (q / 2) + 2)%Z).
  { pose proof (Z_div_mod_eq_full q 2). pose proof (Z.mod_pos_bound q 2). lia. }
  assert (Dn : (2 * ((n + 4) / 2) <= n + 4 < 2 * ((n + 4) / 2) + 2)%Z).
  { pose proof (Z_div_mod_eq_full (n + 4) 2). pose proof (Z.mod_pos_bound (n + 4) 2). lia. }
  exists (q / 2)%Z. split; [lia|]. split.
  - rewrite Vr. apply rnd_ge_pow; [lia|]. rewrite <- sqrt_pow. apply sqrt_le_1_alt.
    apply Rle_trans with (pow2 q); [apply up; lia | exact A1].
  - intros x I. destruct (single_square x (X x I)) as (_ & _ & _ & Vx & _).
    assert (L : V x * V x < pow2 (p + 1)).
    { apply Rnot_le_lt. intros H. apply (rnd_ge_pow (p + 1)) in H; [|lia]. rewrite <- Vx in H.
      assert (V (x * x)%float <= V m) by (apply Lm; unfold sq;
        now apply (in_map (fun x => x * x)%float)).
      lra. }
    set (e := (q / 2 + (n + 4) / 2)%Z).
    assert (L2 : V x * V x <= pow2 e * pow2 e).
    { rewrite <- bpow_plus. apply Rle_trans with (pow2 (p + 1)); [lra|]. apply up. unfold e. lia. }
    apply Rsqr_incr_0; [|apply Rabs_pos | apply bpow_ge_0]. rewrite <- Rsqr_abs. exact L2.
Qed.
End Row.

(* The check of `mean_square` is true, and the normalised row is finite. *)
Theorem rms_norm_at_most M c w xs n b : orderly M -> fin (D.rms_norm_eps c) ->
  pow2 (-100) <= V (D.rms_norm_eps c) <= pow2 100 -> (0 <= n <= 20)%Z -> size n xs ->
  Forall single xs -> Forall (finite_at_most (pow2 b)) w -> (-100 <= (n + 4) / 2 + b <= 127)%Z ->
  Forall (at_most (pow2 ((n + 4) / 2 + b))) (D.rms_norm M c (Some w) xs).
Proof.
  intros O Fe Be N Sx Xs W R. unfold D.rms_norm. cbv zeta.
  destruct xs as [|x0 xs0] eqn:E; [constructor|]. rewrite <- E in *.
  assert (Ne : xs <> []) by congruence.
  destruct (root_val M O _ n xs Fe Be N Sx Xs Ne) as (Fr & s & Hs & Lr & Ux).
  set (root := sqrt _) in *. pose proof (bpow_gt_0 radix2 s) as Ps.
  assert (P : Forall (fun x => single x /\ Rabs (V x) <= pow2 (s + (n + 4) / 2)) xs).
  { apply Forall_forall. intros x I.
    split; [now apply (proj1 (Forall_forall _ _) Xs) | now apply Ux]. }
  revert P W. apply map2_Forall. intros x w0 [Sx0 Bx] [Fw Bw]. cbv beta.
  assert (Dn : (0 <= (n + 4) / 2 <= 12)%Z).
  { pose proof (Z_div_mod_eq_full (n + 4) 2). pose proof (Z.mod_pos_bound (n + 4) 2). lia. }
  assert (Q : Rabs (V x / V root) <= pow2 ((n + 4) / 2)).
  { unfold Rdiv. rewrite Rabs_mult, Rabs_inv, (Rabs_pos_eq (V root)) by lra.
    apply Rmult_le_reg_r with (V root); [lra|]. rewrite Rmult_assoc, Rinv_l, Rmult_1_r by lra.
    eapply Rle_trans; [exact Bx|]. rewrite Z.add_comm, bpow_plus.
    apply Rmult_le_compat_l; [apply bpow_ge_0 | exact Lr]. }
  destruct (div_val x root (proj1 Sx0) Fr) as [Vd Fd]; [lra | eapply Rle_trans;
    [exact Q | apply up; lia] |].
  assert (D1 : Rabs (V (x / root)%float) <= pow2 ((n + 4) / 2)) by (rewrite Vd; apply rnd_le;
    [lia | exact Q]).
  destruct (product _ w0 _ b Fd Fw D1 Bw) as [Fm Bm]; [lia|].
  apply narrow_at_most; [apply bound_pow; lia | now split].
Qed.

Print Assumptions rms_norm_at_most.
