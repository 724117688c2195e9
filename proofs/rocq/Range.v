(* Range.v -- how large the numbers of a row become: `narrow`, sums on a grid, `linear`, `add_rows`.
   Where a bound is given, the check of the operation is true and its row is finite. *)
From Coq Require Import ZArith Reals List Permutation Lia Lra Bool Floats.
From Flocq Require Import Core BinarySingleNaN PrimFloat.
From Minikv Require Import Exactness Grids Binary64 Values Machine Total GridOrder Narrow Rows
  Linear Attend Settle Hidden.
From Minikv Require Decoder.
Import ListNotations.
Open Scope R_scope.
#[local] Existing Instances Binary64.Hprec Binary64.Hmax.
#[local] Instance valid_exp : Valid_exp fexp64 := FLT_exp_valid (-1074) 53.
#[local] Instance prec24 : Prec_gt_0 24 := eq_refl.
#[local] Instance valid_exp32 : Valid_exp fexp32 := FLT_exp_valid (-149) 24.
#[local] Opaque one.

(* A finite float32 of at most r; a finite number of at most r. *)
Definition at_most (r : R) (x : float) : Prop := single x /\ Rabs (V x) <= r.
Definition finite_at_most (r : R) (x : float) : Prop := fin x /\ Rabs (V x) <= r.
Lemma at_most_le r s x : r <= s -> at_most r x -> at_most s x.
Proof. intros L [S B]. split; [exact S | lra]. Qed.
Lemma at_most_row r s xs : r <= s -> Forall (at_most r) xs -> Forall (at_most s) xs.
Proof. intros L. apply Forall_impl. intros x. now apply at_most_le. Qed.
Lemma single_row r xs : Forall (at_most r) xs -> Forall single xs.
Proof. apply Forall_impl. now intros x []. Qed.
Lemma finite_row r xs : Forall (at_most r) xs -> Forall fin xs.
Proof. apply Forall_impl. now intros x [[] _]. Qed.

(** * narrow *)
(* A bound that narrowing keeps. *)
Definition bound32 (r : R) : Prop := generic_format radix2 fexp32 r /\ 0 <= r < pow2 128.
Lemma bound_count k b : (0 <= k < 2^24)%Z -> (-149 <= b <= 104)%Z -> bound32 (IZR k * pow2 b).
Proof.
  intros K Hb. pose proof (bpow_gt_0 radix2 b) as P. split.
  - apply generic_format_FLT. exists (Float radix2 k b); simpl; [reflexivity | lia | lia].
  - assert (0 <= IZR k) by (apply IZR_le; lia). split; [nra|].
    apply Rlt_le_trans with (pow2 (24 + b)); [|apply up; lia]. rewrite pow2_split by lia.
    apply Rmult_lt_compat_r; [exact P | apply IZR_lt; lia].
Qed.
Lemma bound_pow b : (-149 <= b <= 127)%Z -> bound32 (pow2 b).
Proof.
  intros Hb. split; [apply generic_format_bpow; unfold FLT_exp; lia|].
  split; [apply bpow_ge_0 | apply bpow_lt; lia].
Qed.

Lemma narrow_tiny y : fin y -> V y <> 0 -> Rabs (V y) <= pow2 (-400) ->
  fin (D.narrow y) /\ V (D.narrow y) = 0.
Proof.
  intros Fy Ny Hy. unfold D.narrow. rewrite (eqb_val y 0) by (auto; finite). rewrite V_0.
  rewrite Req_bool_false by exact Ny. cbv zeta. destruct (abs_val y) as [Va Fa]. specialize (Fa Fy).
  assert (V128 : V 0x1p128 = pow2 128) by (value; simpl; lra).
  assert (V149 : V 0x1p-149 = pow2 (-149)) by (value; simpl; lra).
  assert (V23 : V 0x1p-23 = pow2 (-23)) by (value; simpl; lra).
  assert (Lt : pow2 (-400) < pow2 128) by (apply bpow_lt; lia).
  rewrite leb_val, Va, V128 by (auto; finite). rewrite Rle_bool_false by lra.
  destruct (power_below_val (abs y) Fa) as [Vp Fp].
  { rewrite Va. split; [apply Rabs_pos|]. eapply Rle_trans; [exact Hy | apply up; lia]. }
  assert (Pb : 0 <= power_below (Rabs (V y)) <= pow2 (-400)).
  { destruct (mag radix2 (Rabs (V y))) as [e He]. specialize (He (Rabs_no_R0 _ Ny)).
    rewrite Rabs_Rabsolu in He. assert (E : (-1074 <= e - 1)%Z).
    { assert (L : pow2 (-1074) <= Rabs (V y)).
      { rewrite <- Va. assert (Fm := V_format (abs y)).
        destruct (Rle_or_lt (pow2 (-1074)) (V (abs y))) as [L | L]; [exact L|].
        exfalso. rewrite Va in L, Fm. apply Ny.
        assert (Z : Rabs (V y) = 0); [|destruct (Req_dec (V y) 0) as [Q | Q]; [exact Q|];
          pose proof (Rabs_pos_lt _ Q); lra].
        apply (FLT_format_generic radix2 (-1074) 53) in Fm. destruct Fm as [f E1 _ E2].
        rewrite E1 in L |- *. unfold F2R in *.
        assert (Z0 : (Fnum f = 0)%Z); [|rewrite Z0; apply Rmult_0_l].
        assert (P0 : 0 <= IZR (Fnum f) * pow2 (Fexp f)) by (rewrite <- E1; apply Rabs_pos).
        pose proof (bpow_gt_0 radix2 (Fexp f)). pose proof (up (-1074) _ E2).
        assert (N1 : 0 <= IZR (Fnum f) < 1) by (split; nra).
        destruct N1 as [N1 N2]. apply le_IZR in N1. apply lt_IZR in N2. lia. }
      apply Z.lt_succ_r, (lt_bpow radix2). unfold Z.succ. replace (e - 1 + 1)%Z with e by lia.
      eapply Rle_lt_trans; [exact L | apply He]. }
    rewrite (power_below_exact (e - 1)); [| exact E | rewrite <- Va; apply V_format |].
    - split; [apply bpow_ge_0 | lra].
    - now replace (e - 1 + 1)%Z with e by lia. }
  rewrite <- Va, <- Vp in Pb.
  assert (Pg : Rabs (V (D.power_below (abs y)) * pow2 (-23)) <= pow2 (-400)).
  { pose proof (bpow_ge_0 radix2 (-23)). assert (pow2 (-23) <= 1) by (simpl; lra).
    rewrite Rabs_pos_eq by nra. nra. }
  destruct (mul_val (D.power_below (abs y)) 0x1p-23 Fp) as [Vg Fg]; [finite | |].
  { rewrite V23. eapply Rle_trans; [exact Pg | apply up; lia]. }
  assert (Gs : V (D.power_below (abs y) * 0x1p-23)%float < pow2 (-149)).
  { rewrite Vg, V23. apply Rle_lt_trans with (pow2 (-400)); [|apply bpow_lt; lia].
    eapply Rle_trans; [apply Rle_abs|]. apply rnd_le; [lia | exact Pg]. }
  rewrite (ltb_val (D.power_below (abs y) * 0x1p-23)%float), V149 by (auto; finite).
  rewrite Rlt_bool_true by exact Gs.
  destruct (to_grid_val 0x1p-149 (abs y) (-149)) as (_ & Fr & [[k Hk] Near]);
    [finite | exact Fa | exact V149 | lia | |].
  { rewrite Va, Rabs_Rabsolu. eapply Rle_trans; [exact Hy | apply up; lia]. }
  set (r := D.to_grid 0x1p-149 (abs y)) in *.
  assert (Z : V r = 0).
  { rewrite Hk in Near |- *. rewrite Va in Near. enough (k = 0%Z) as -> by ring.
    pose proof (bpow_gt_0 radix2 (-149)) as P. apply Rabs_le_inv in Near.
    assert (T : pow2 (-400) <= pow2 (-149) / 4).
    { replace (pow2 (-149) / 4) with (pow2 (-151)); [apply up; lia|].
      change (-149)%Z with (2 + -151)%Z. rewrite (bpow_plus radix2 2). simpl (bpow radix2 2). lra. }
    pose proof (Rabs_pos (V y)).
    assert (N1 : -1 < IZR k < 1) by (split; nra).
    destruct N1 as [N1 N2]. apply lt_IZR in N1, N2. lia. }
  rewrite leb_val, V128 by (auto; finite). rewrite Z, Rle_bool_false by apply bpow_gt_0.
  destruct (y <? 0)%float; [|now split].
  destruct (opp_val r) as [-> Fo]. rewrite Z. split; [now apply Fo | ring].
Qed.

Theorem narrow_at_most r y : bound32 r -> finite_at_most r y -> at_most r (D.narrow y).
Proof.
  intros [Fr [R0 R1]] [Fy By].
  assert (M : moderate y \/ (V y <> 0 /\ Rabs (V y) <= pow2 (-400))).
  { destruct (Req_dec (V y) 0) as [Z | N]; [left; split; auto|].
    destruct (Rle_or_lt (pow2 (-400)) (Rabs (V y))) as [L | L]; [left | right; split;
      [exact N | lra]].
    split; [exact Fy | right]. split; [exact L|]. apply Rle_trans with (pow2 128); [lra|].
    apply up. lia. }
  destruct M as [M | [N T]].
  - assert (B : Rabs (rnd32 (V y)) <= r).
    { apply abs_round_le_generic; [exact _ | apply valid_rnd_N | exact Fr | exact By]. }
    destruct (narrow_val y M) as [E F']; [lra|].
    split; [split; [exact F'|split]|]; rewrite E; [|lra|exact B].
    apply generic_format_round; [exact _ | apply valid_rnd_N].
  - destruct (narrow_tiny y Fy N T) as [F' Z].
    split; [split; [exact F'|split]|]; rewrite Z; rewrite ?Rabs_R0; [|apply bpow_gt_0 | exact R0].
    apply generic_format_0.
Qed.

Lemma plus_zero r x : at_most r x -> at_most r (x + 0)%float.
Proof.
  intros [S B]. pose proof S as (Fx & Fm & Lt).
  destruct (Req_dec (V x) 0) as [Z | N].
  - assert (E : (x + 0)%float = 0%float) by now destruct (V_zero x Fx Z) as [-> | ->].
    rewrite E. rewrite Z in *. rewrite Rabs_R0 in *. split; [split; [finite|]|]; rewrite V_0.
    + split; [exact Fm | rewrite Rabs_R0; exact Lt].
    + rewrite Rabs_R0. exact B.
  - destruct (add_val x 0 Fx) as [Va Fa]; [finite | |].
    { rewrite V_0, Rplus_0_r. apply Rle_trans with (pow2 128); [lra | apply up; lia]. }
    rewrite V_0, Rplus_0_r in Va. unfold rnd in Va.
    rewrite round_generic in Va by (apply valid_rnd_N || apply V_format).
    split; [split; [exact Fa|]|]; rewrite Va; [now split | exact B].
Qed.

(** * Sums on a grid *)
Lemma sumabs_count r xs : 0 <= r -> Forall (fun x => Rabs x <= r) xs ->
  sumabs xs <= INR (length xs) * r.
Proof.
  intros R0. unfold sumabs. induction 1 as [|x xs B _ IH]; cbn [length map sum fold_right].
  - simpl. lra.
  - rewrite S_INR. unfold sum in *. lra.
Qed.
Lemma power_below_le t : Grids.F t -> pow2 (-1001) <= t -> power_below t <= t.
Proof. intros Ft P. destruct (power_below_positive t Ft P) as (k & -> & _ & H). lra. Qed.

(* Rounded to the grid of its L1 norm a row has at most four times the norm. *)
Lemma l1_bound M bits scale xs : orderly M -> (29 <= bits <= 50)%Z -> fin scale ->
  V scale = Grids.scale bits -> plain scale -> Forall moderate xs -> short xs ->
  sumabs (map V (map (D.to_grid (D.grid M scale xs)) xs)) <= 4 * sumabs (map V xs).
Proof.
  intros O Hb Fs Vs P Mo K. pose proof (moderate_fin xs Mo) as Fi.
  pose proof (sumabs_nonneg (map V xs)) as S0.
  destruct xs as [|x0 xs0] eqn:E; [unfold sumabs; simpl; lra|]. rewrite <- E in *.
  destruct (zeros_or xs) as [Z | N].
  { rewrite grid_zeros by (auto; congruence). rewrite zeros_grid by auto.
    enough (Q : sumabs (map V (repeat 0%float (length xs))) = 0) by lra.
    unfold sumabs. rewrite !map_repeat, V_0, Rabs_R0. clear. induction (length xs); simpl; lra. }
  destruct (grid_val M bits scale xs O Hb Fs Vs Mo N K) as (u & Vg & Eu & Fg & U & Each & Bound).
  destruct (near_map _ u xs Fg Vg ltac:(lia) Fi Each) as [F' N'].
  eapply Rle_trans; [now apply Bound|].
  assert (My : Forall moderate (map abs xs)) by now apply abs_moderate.
  destruct (total_val M (map abs xs) O My) as (_ & At & Vt).
  { intros y I. apply in_map_iff in I as (x & <- & _). destruct (abs_val x) as [-> _].
    apply Rabs_pos. }
  { destruct N as (x & I & Nx). exists (abs x). split; [now apply in_map|].
    destruct (abs_val x) as [-> _]. now apply Rabs_no_R0. }
  { unfold short. now rewrite map_length. }
  rewrite abs_map in At. fold (sumabs (map V xs)) in At. rewrite Vt in At.
  set (S := sumabs (map V xs)) in *.
  assert (S1 : pow2 (-400) <= S).
  { destruct N as (x & I & Nx).
    destruct (proj1 (Forall_forall _ _) Mo x I) as [_ [Z | [B _]]]; [easy|].
    eapply Rle_trans; [exact B|]. unfold S, sumabs. rewrite <- abs_map.
    destruct (abs_val x) as [<- _]. apply sum_ge_each; [|now apply in_map].
    intros y J. apply in_map_iff in J as (z & <- & _). destruct (abs_val z) as [-> _].
    apply Rabs_pos. }
  assert (C0 : pow2 (- bits) <= Grids.scale bits <= 5 / 4 * pow2 (- bits)).
  { unfold Grids.scale. pose proof (bpow_gt_0 radix2 (- bits)). simpl (bpow radix2 (-9)). lra. }
  assert (Low : pow2 (-1000) <= S * Grids.scale bits).
  { apply Rle_trans with (pow2 (-400) * pow2 (- bits)); [rewrite <- bpow_plus; apply up; lia|].
    pose proof (bpow_ge_0 radix2 (-400)). pose proof (bpow_ge_0 radix2 (- bits)).
    apply Rmult_le_compat; lra. }
  destruct (target_approx bits S _ At Low) as (Ft & Pt & Et). apply Rabs_le_inv in Et.
  pose proof (power_below_le _ Ft Pt) as L. simpl (bpow radix2 (-33)) in Et.
  rewrite bpow_plus, Eu. pose proof (bpow_gt_0 radix2 bits) as Pb.
  assert (Inv : pow2 bits * pow2 (- bits) = 1).
  { rewrite <- bpow_plus. now replace (bits + - bits)%Z with 0%Z by lia. }
  assert (T : target bits (total_real (map abs xs)) <= 2 * S * pow2 (- bits)).
  { assert (S * Grids.scale bits <= S * (5 / 4 * pow2 (- bits))) by (apply Rmult_le_compat_l; lra).
    pose proof (bpow_ge_0 radix2 (- bits)). assert (0 <= S * pow2 (- bits)) by nra. lra. }
  apply Rle_trans with (pow2 bits * (2 * (2 * S * pow2 (- bits)))).
  - apply Rmult_le_compat_l; lra.
  - replace (pow2 bits * (2 * (2 * S * pow2 (- bits)))) with (4 * S * (pow2 bits * pow2 (- bits)))
      by ring.
    rewrite Inv. lra.
Qed.

Lemma dot_bound r xs : forall ws, 0 <= r -> Forall (finite_at_most r) ws ->
  Rabs (bdot (pairs xs ws)) <= r * sumabs (map V xs).
Proof.
  unfold bdot, dot, sumabs.
  induction xs as [|x xs IH]; intros [|w ws] R0 H; cbn [pairs map combine prods sum fold_right].
  - simpl. rewrite Rabs_R0. lra.
  - simpl. rewrite Rabs_R0. lra.
  - unfold pairs. simpl. rewrite Rabs_R0. pose proof (sumabs_nonneg (map V xs)) as Q.
    unfold sumabs, sum in Q. pose proof (Rabs_pos (V x)). nra.
  - inversion_clear H as [|? ? [Fw Bw] Hws]. specialize (IH ws R0 Hws).
    change (Rabs (V x * V w + sum (prods (map real2 (pairs xs ws))))
      <= r * (Rabs (V x) + sum (map Rabs (map V xs)))).
    eapply Rle_trans; [apply Rabs_triang|]. rewrite Rabs_mult.
    pose proof (Rabs_pos (V x)). assert (Rabs (V x) * Rabs (V w) <= r * Rabs (V x)) by nra. lra.
Qed.

(** * linear *)
Definition size (n : Z) (xs : list float) : Prop := INR (length xs) <= pow2 n.
Lemma size_short n xs : (n <= 20)%Z -> size n xs -> short xs.
Proof. intros N H. unfold short. eapply Rle_trans; [exact H | now apply up]. Qed.
Lemma short_longest {A} (xs : list A) : short xs -> D.no_longer D.longest xs = true.
Proof.
  intros K. assert (E : V D.longest = pow2 20) by (value; simpl; lra).
  apply no_longer_intro; [finite | rewrite E; apply up; lia | now rewrite E].
Qed.
Lemma tame_row xs : Forall single xs -> forallb D.tame xs = true.
Proof. intros H. apply forallb_forall. rewrite Forall_forall in H. intros x I.
now apply single_tame, H. Qed.

(* The check of `linear` is true of finite float32 numbers, and its row is finite if they are not
   too large. *)
Theorem linear_at_most M ws x n b c : orderly M -> prepared ws ->
  Forall (Forall (finite_at_most (pow2 b))) ws -> (n <= 20)%Z -> size n x ->
  Forall (at_most (pow2 c)) x -> (-100 <= n + c + b + 2 <= 127)%Z ->
  length (D.linear M ws x) = length ws /\
  Forall (at_most (pow2 (n + c + b + 2))) (D.linear M ws x).
Proof.
  intros O P Bw N Sx Hx Hb. pose proof (size_short n x N Sx) as K.
  pose proof (tame_row x (single_row _ _ Hx)) as T. unfold D.linear.
  rewrite T, (short_longest x K). cbn [andb]. cbv zeta. split; [apply map_length|].
  pose proof (forallb_Forall _ _ _ tame_moderate T) as Mo.
  destruct bits32_val as (Fs & Vs & Pl). set (x' := map (D.to_grid (D.grid M D.bits32 x)) x).
  assert (X : l1_row 32 x') by (apply (l1_val M 32); auto; lia).
  assert (L : sumabs (map V x') <= 4 * sumabs (map V x)) by (apply (l1_bound M 32); auto; lia).
  assert (Q : sumabs (map V x) <= pow2 n * pow2 c).
  { eapply Rle_trans; [apply (sumabs_count (pow2 c)); [apply bpow_ge_0|]|].
    - apply Forall_map. eapply Forall_impl; [|exact Hx]. now intros a [].
    - rewrite map_length. apply Rmult_le_compat_r; [apply bpow_ge_0 | exact Sx]. }
  apply Forall_map, Forall_forall. intros w I. rewrite Forall_forall in Bw. unfold prepared in P.
  rewrite Forall_forall in P.
  destruct (rows_fit 32 21 x' w) as [u F]; [lia | exact X | now apply P|].
  destruct (dot_exact M u x' w O F) as [Fd Vd].
  apply plus_zero, narrow_at_most; [apply bound_pow; lia|]. split; [exact Fd|]. rewrite Vd.
  eapply Rle_trans; [apply (dot_bound (pow2 b)); [apply bpow_ge_0 | now apply Bw]|].
  replace (n + c + b + 2)%Z with (b + (2 + (n + c)))%Z by lia.
  rewrite (bpow_plus _ b), (bpow_plus _ 2), (bpow_plus _ n).
  apply Rmult_le_compat_l; [apply bpow_ge_0|]. simpl (bpow radix2 2). lra.
Qed.

(** * add_rows *)
Lemma map2_Forall {A B C} (f : A -> B -> C) (P : A -> Prop) (Q : B -> Prop) (R : C -> Prop) xs :
  (forall x y, P x -> Q y -> R (f x y)) -> forall ys,
    Forall P xs -> Forall Q ys -> Forall R (D.map2 f xs ys).
Proof.
  intros H. induction xs as [|x xs IH]; intros [|y ys] Hx Hy; try constructor.
  - apply H; [exact (Forall_inv Hx) | exact (Forall_inv Hy)].
  - apply IH; [exact (Forall_inv_tail Hx) | exact (Forall_inv_tail Hy)].
Qed.
Lemma map2_length {A B C} (f : A -> B -> C) xs : forall ys,
  (length (D.map2 f xs ys) <= length xs)%nat /\ (length (D.map2 f xs ys) <= length ys)%nat.
Proof.
  induction xs as [|x xs IH]; intros [|y ys]; cbn [D.map2 length]; try lia.
  destruct (IH ys). lia.
Qed.
Lemma add_at_most r s t x y : bound32 t -> r + s <= t -> finite_at_most r x -> finite_at_most s y ->
  at_most t (D.narrow (x + y)).
Proof.
  intros T L [Fx Bx] [Fy By]. pose proof (proj2 T) as [_ T1].
  assert (S : Rabs (V x + V y) <= t) by (eapply Rle_trans; [apply Rabs_triang | lra]).
  destruct (add_val x y Fx Fy) as [Va Fa].
  { apply Rle_trans with (pow2 128); [lra | apply up; lia]. }
  apply narrow_at_most; [exact T|]. split; [exact Fa|]. rewrite Va.
  apply abs_round_le_generic; [exact _ | apply valid_rnd_N | | exact S].
  destruct T as [T _]. revert T. apply generic_inclusion_mag. intros _. unfold FLT_exp. lia.
Qed.
Lemma add_rows_at_most r s t xs ys : bound32 t -> r + s <= t -> Forall (finite_at_most r) xs ->
  Forall (finite_at_most s) ys -> Forall (at_most t) (D.add_rows xs ys).
Proof. intros T L. apply map2_Forall. intros x y. now apply add_at_most. Qed.
Lemma finite_of r xs : Forall (at_most r) xs -> Forall (finite_at_most r) xs.
Proof. apply Forall_impl. now intros x [[F _] B]. Qed.

Print Assumptions narrow_at_most.
Print Assumptions linear_at_most.
