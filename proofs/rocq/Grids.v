(* Grids.v -- T7 (order): how `Exact` puts numbers on a grid, so that T7's bound always holds.

   Exactness.v asks for a sum whose terms are multiples of 2^u and whose absolute values add up to
   at most 2^53 * 2^u.  Three helpers of minikv/arithmetic/exact.py see to it, with a handful of
   binary64 operations and no look at the bits:

     power_below(y)    the largest power of two <= y, so that every grid is a power of two
     round_to(x, grid) the nearest multiple of the grid
     Exact.grid        the grid of a row, so fine that sum |x| is at most 2^bits steps, and the
                       same in whatever order the row was added up to find it

   The proofs are over the reals, with one `rnd` for each operation of the Python line. *)
From Flocq Require Import Core Relative Plus_error.
From Coq Require Import ZArith Reals List Permutation Lia Lra.
From Minikv Require Import Exactness.
Import ListNotations.
Open Scope R_scope.

Notation F := (generic_format radix2 fexp64).      (* is a binary64 number *)
#[local] Instance prec53 : Prec_gt_0 53 := eq_refl.
#[local] Instance valid_exp : Valid_exp fexp64 := FLT_exp_valid (-1074) 53.

Lemma grid_format u n : (-1074 <= u)%Z -> (Z.abs n <= 2^53)%Z -> F (IZR n * pow2 u).
Proof. intros. now apply int_format. Qed.
Lemma pow2_split n u : (0 <= n)%Z -> pow2 (n + u) = IZR (2^n) * pow2 u.
Proof. intros. rewrite bpow_plus. f_equal. now rewrite <- (IZR_Zpower radix2). Qed.

(* In the binade [2^(52+u), 2^(53+u)) the binary64 numbers are 2^u apart. *)
Lemma binade_cexp u x : (-1074 <= u)%Z -> pow2 (52 + u) <= x < pow2 (53 + u) ->
  cexp radix2 fexp64 x = u.
Proof.
  intros Hu H. unfold cexp. rewrite (mag_unique_pos radix2 x (53 + u)).
  - unfold FLT_exp. lia.
  - now replace (53 + u - 1)%Z with (52 + u)%Z by lia.
Qed.
Lemma binade_grid u x : (-1074 <= u)%Z -> pow2 (52 + u) <= x < pow2 (53 + u) -> on_grid u (rnd x).
Proof. intros Hu H. unfold rnd, round. rewrite (binade_cexp u) by assumption. now eexists. Qed.
Lemma binade_ulp u x : (-1074 <= u)%Z -> pow2 (52 + u) <= x < pow2 (53 + u) ->
  ulp radix2 fexp64 x = pow2 u.
Proof.
  intros Hu H. rewrite ulp_neq_0; [f_equal; now apply binade_cexp|].
  pose proof (bpow_gt_0 radix2 (52 + u)). lra.
Qed.
(* x rounds down to u, if u is in the format and x is nearer to it than to the next number. *)
Lemma rnd_down u n x : (-1074 <= u)%Z -> (2^52 <= n < 2^53)%Z ->
  IZR n * pow2 u <= x < IZR n * pow2 u + pow2 u / 2 -> rnd x = IZR n * pow2 u.
Proof.
  intros Hu Hn H. set (p := IZR n * pow2 u) in *.
  assert (Fp : F p) by (apply grid_format; lia).
  assert (B : pow2 (52 + u) <= p < pow2 (53 + u)).
  { rewrite !pow2_split by lia. unfold p. pose proof (bpow_gt_0 radix2 u).
    split; [apply Rmult_le_compat_r; [lra|] | apply Rmult_lt_compat_r; [lra|]];
      [apply IZR_le | apply IZR_lt]; lia. }
  assert (P : 0 < p) by (pose proof (bpow_gt_0 radix2 (52 + u)); lra).
  apply Rle_antisym.
  - apply round_N_le_midp; [exact _ | exact Fp |].
    rewrite succ_eq_pos, (binade_ulp u p) by (auto; lra). lra.
  - apply round_ge_generic; [exact _ | apply valid_rnd_N | exact Fp | lra].
Qed.

(** * T7: `power_below` *)
Definition power_below (y : R) : R :=
  let q := rnd (y * IZR (2^52 + 1)) in rnd (q - rnd (q * (1 - pow2 (-53)))).

Theorem power_below_exact k y : (-1074 <= k)%Z -> F y -> pow2 k <= y < pow2 (k + 1) ->
  power_below y = pow2 k.
Proof.
  intros Hk Fy Hy. pose proof (bpow_gt_0 radix2 k) as P.
  assert (Hy' : pow2 k <= y < 2 * pow2 k) by (rewrite bpow_plus in Hy; simpl in Hy; lra).
  (* y is at least one unit in its last place below 2^(k+1) *)
  assert (Top : IZR (2^52) * y <= IZR (2^53 - 1) * pow2 k).
  { set (u := Z.max (k - 52) (-1074)).
    assert (G : exists m, y = IZR m * pow2 u).
    { unfold generic_format in Fy. eexists. rewrite Fy at 1. unfold F2R. simpl. do 2 f_equal.
      unfold cexp. rewrite (mag_unique_pos radix2 y (k + 1)).
      - unfold FLT_exp, u. f_equal; lia.
      - now replace (k + 1 - 1)%Z with k by lia. }
    destruct G as [m ->]. pose proof (bpow_gt_0 radix2 u).
    assert (D : pow2 k = IZR (2^(k - u)) * pow2 u).
    { rewrite <- pow2_split by lia. f_equal. lia. }
    rewrite D in *.
    assert (M : (m < 2 * 2^(k - u))%Z).
    { apply lt_IZR. rewrite mult_IZR. apply Rmult_lt_reg_r with (pow2 u); lra. }
    assert (E : (2^(k - u) <= 2^52)%Z) by (apply Z.pow_le_mono_r; lia).
    rewrite <- !Rmult_assoc, <- !mult_IZR. apply Rmult_le_compat_r; [lra|]. apply IZR_le. nia. }
  assert (Q : exists n, (2^52 + 1 <= n <= 2^53)%Z /\ rnd (y * IZR (2^52 + 1)) = IZR n * pow2 k).
  { set (v := y * IZR (2^52 + 1)).
    assert (Lo : IZR (2^52 + 1) * pow2 k <= v) by (unfold v; simpl IZR in *; lra).
    destruct (Rlt_or_le v (pow2 (53 + k))) as [C|C].
    - destruct (binade_grid k v) as [n E]; [exact Hk | |].
      { rewrite pow2_split by lia. simpl IZR in *. lra. }
      exists n. split; [|exact E].
      split; apply le_IZR, Rmult_le_reg_r with (pow2 k); auto; rewrite <- E.
      + apply round_ge_generic; [exact _ | apply valid_rnd_N | apply grid_format; lia | exact Lo].
      + rewrite <- pow2_split by lia.
        apply round_le_generic; [exact _ | apply valid_rnd_N | | lra].
        apply generic_format_bpow. unfold FLT_exp. lia.
    - exists (2^53)%Z. split; [lia|].
      replace (IZR (2^53) * pow2 k) with (IZR (2^52) * pow2 (1 + k))
        by (rewrite (bpow_plus _ 1); simpl; lra).
      apply rnd_down; [lia | lia |]. rewrite pow2_split in C by lia. rewrite (bpow_plus _ 1).
      unfold v in *. simpl IZR in *. simpl (bpow radix2 1). lra. }
  destruct Q as (n & Hn & Q). unfold power_below. rewrite Q.
  assert (Z : rnd (IZR n * pow2 k * (1 - pow2 (-53))) = IZR (n - 1) * pow2 k).
  { apply rnd_down; [lia | lia |]. rewrite minus_IZR.
    assert (N : IZR (2^52 + 1) <= IZR n <= IZR (2^53)) by (split; apply IZR_le; lia).
    simpl IZR in N |- *. simpl (bpow radix2 (-53)). split; nra. }
  rewrite Z, minus_IZR. replace (_ - _) with (pow2 k) by ring.
  apply round_generic; [apply valid_rnd_N|]. apply generic_format_bpow. unfold FLT_exp. lia.
Qed.

(** * T7: `round_to` *)
Definition round_to (g x : R) : R :=
  let shift := rnd (g * (3 / 2 * pow2 52)) in rnd (rnd (x + shift) - shift).
Definition near (u : Z) (r x : R) : Prop := on_grid u r /\ Rabs (r - x) <= pow2 u / 2.

Theorem round_to_near u x : (-1074 <= u)%Z -> Rabs x <= pow2 (51 + u) ->
  near u (round_to (pow2 u) x) x.
Proof.
  intros Hu Hx. pose proof (bpow_gt_0 radix2 u) as P. unfold round_to.
  set (s := IZR (3 * 2^51) * pow2 u).
  replace (rnd (pow2 u * _)) with s.
  2: { replace (pow2 u * (3 / 2 * pow2 52)) with s by (unfold s; simpl; lra). symmetry.
       apply round_generic; [apply valid_rnd_N | apply grid_format; lia]. }
  assert (B : pow2 (52 + u) <= x + s <= pow2 (53 + u)).
  { rewrite !pow2_split in * by lia. unfold s. apply Rabs_le_inv in Hx. simpl IZR in *. lra. }
  assert (R : near u (rnd (x + s)) (x + s)).
  { destruct (Rle_lt_or_eq_dec _ _ (proj2 B)) as [C|C].
    - split; [apply binade_grid; [exact Hu | lra]|].
      replace (pow2 u / 2) with (/ 2 * ulp radix2 fexp64 (x + s))
        by (rewrite (binade_ulp u); [lra | exact Hu | lra]).
      apply error_le_half_ulp. exact _.
    - rewrite C. unfold rnd. rewrite round_generic.
      + split; [exists (2^53)%Z; apply pow2_split; lia|]. rewrite Rminus_diag_eq, Rabs_R0; lra.
      + apply valid_rnd_N.
      + apply generic_format_bpow. unfold FLT_exp. lia. }
  destruct R as [G E]. apply Rabs_le_inv in E.
  assert (G' : on_grid u (rnd (x + s) - s)).
  { destruct G as [n ->]. exists (n - 3 * 2^51)%Z. unfold s. rewrite minus_IZR. ring. }
  rewrite (rnd_grid u); [| exact Hu | exact G' |].
  - split; [exact G'|]. apply Rabs_le. lra.
  - apply Rabs_le_inv in Hx. apply Rabs_le. rewrite !pow2_split in * by lia. simpl IZR in *. lra.
Qed.

(* A number that is on the grid stays: zeros are kept (padding), settling twice is settling once. *)
Corollary round_to_fixed u x : (-1074 <= u)%Z -> Rabs x <= pow2 (51 + u) -> on_grid u x ->
  round_to (pow2 u) x = x.
Proof.
  intros Hu Hx [m ->]. destruct (round_to_near u _ Hu Hx) as [[n ->] E].
  pose proof (bpow_gt_0 radix2 u).
  rewrite <- Rmult_minus_distr_r, <- minus_IZR, Rabs_mult, (Rabs_pos_eq (pow2 u)), <- abs_IZR in E
    by lra.
  assert (L : IZR (Z.abs (n - m)) < IZR 1) by (apply Rmult_lt_reg_r with (pow2 u); lra).
  apply lt_IZR in L. now replace n with m by lia.
Qed.

(* Rounding to a grid does not leave a range that ends on it. *)
Lemma near_bounded n u r x : (0 <= n)%Z -> near u r x -> Rabs x <= pow2 (n + u) ->
  Rabs r <= pow2 (n + u).
Proof.
  intros Hn [[k ->] E] Hx. rewrite pow2_split in * by exact Hn. pose proof (bpow_gt_0 radix2 u).
  pose proof (Rabs_triang (IZR k * pow2 u - x) x) as T.
  replace (_ - x + x) with (IZR k * pow2 u) in T by ring.
  rewrite Rabs_mult, (Rabs_pos_eq (pow2 u)), <- abs_IZR in * by lra.
  assert (L : IZR (Z.abs k) < IZR (2^n + 1)).
  { rewrite plus_IZR. apply Rmult_lt_reg_r with (pow2 u); lra. }
  apply lt_IZR in L. apply Rmult_le_compat_r; [lra|]. apply IZR_le. lia.
Qed.

(** * T7: `Exact.grid`
   The grid of a row follows from its L1 norm, which is itself a sum, of numbers on no grid.  So
   it is taken in any order, with its rounding errors, and only decides where these cannot matter:
   away from the powers of two.  Elsewhere the correctly rounded sum decides. *)
Definition step : R := pow2 (-53) * (1 + pow2 (-32)).
Definition exact_product (p : R * R) : Prop := 0 <= fst p * snd p /\ F (fst p * snd p).

Lemma rnd_plus_error x y : F x -> F y -> 0 <= x + y ->
  Rabs (rnd (x + y) - (x + y)) <= pow2 (-53) * (x + y).
Proof.
  intros Fx Fy P.
  destruct (FLT_plus_error_N_ex radix2 (-1074) 53 (fun n => negb (Z.even n)) x y Fx Fy)
    as (e & He & E).
  unfold rnd. rewrite E. replace ((x + y) * (1 + e) - (x + y)) with (e * (x + y)) by ring.
  rewrite Rabs_mult, (Rabs_pos_eq (x + y)) by exact P. apply Rmult_le_compat_r; [exact P|].
  eapply Rle_trans; [exact He|]. unfold u_ro. simpl. lra.
Qed.

Lemma add_error n S T x y : INR n <= pow2 20 -> F x -> F y -> 0 <= S -> 0 <= T ->
  Rabs (x - S) <= INR n * step * S -> Rabs (y - T) <= INR n * step * T ->
  Rabs (rnd (x + y) - (S + T)) <= INR (n + 1) * step * (S + T).
Proof.
  intros N Fx Fy HS HT X Y. apply Rabs_le_inv in X, Y.
  pose proof (pos_INR n) as N0. rewrite plus_INR. simpl (INR 1).
  set (d := INR n * step) in *.
  assert (D : 0 <= d <= pow2 (-32)) by (unfold d, step; simpl in *; nra).
  assert (P : 0 <= x + y) by (simpl in D; nra).
  pose proof (rnd_plus_error x y Fx Fy P) as E. apply Rabs_le_inv in E.
  replace ((INR n + 1) * step * (S + T)) with (d * (S + T) + step * (S + T)) by (unfold d; ring).
  assert (Q : pow2 (-53) * (x + y) <= step * (S + T)).
  { unfold step. rewrite Rmult_assoc. apply Rmult_le_compat_l; [apply bpow_ge_0|]. nra. }
  apply Rabs_le. lra.
Qed.

Lemma any_sum_error t : Forall exact_product (leaves t) -> INR (length (leaves t)) <= pow2 20 ->
  F (feval t) /\ 0 <= dot (leaves t) /\ (leaves t = [] -> feval t = 0) /\
  Rabs (feval t - dot (leaves t)) <= INR (Nat.pred (length (leaves t))) * step * dot (leaves t).
Proof.
  assert (F0 : F 0) by apply generic_format_0.
  assert (Keep : forall x, F x -> rnd x = x).
  { intros. apply round_generic; [apply valid_rnd_N | assumption]. }
  assert (Fr : forall x, F (rnd x)).
  { intros. apply generic_format_round; [exact _ | apply valid_rnd_N]. }
  induction t as [|x|x w|x w a IH|l IHl r IHr]; cbn [leaves feval]; intros E N.
  - unfold dot; simpl. rewrite Rminus_diag_eq, Rabs_R0 by reflexivity. repeat split; auto; lra.
  - apply Forall_inv in E as [P Fx]. simpl in P, Fx. rewrite Rmult_1_r in *.
    unfold dot; simpl. replace (x - _) with 0 by ring. rewrite Rabs_R0.
    repeat split; auto; try easy; lra.
  - apply Forall_inv in E as [P Fx]. simpl in P, Fx. rewrite Keep by exact Fx.
    unfold dot; simpl. replace (x * w - _) with 0 by ring. rewrite Rabs_R0.
    repeat split; auto; try easy; lra.
  - pose proof (Forall_inv E) as [P Fx]. apply Forall_inv_tail in E. simpl in P, Fx.
    cbn [length Nat.pred] in N |- *. rewrite S_INR in N.
    destruct IH as (Fa & Pa & Za & Ea); [exact E | lra |].
    change (dot ((x, w) :: leaves a)) with (x * w + dot (leaves a)).
    repeat split; [apply Fr | lra | easy |].
    destruct (leaves a) as [|p m] eqn:L.
    + rewrite Za by reflexivity. rewrite Rplus_0_r, Keep by exact Fx. unfold dot; simpl.
      replace (_ - _) with 0 by ring. rewrite Rabs_R0. lra.
    + cbn [length Nat.pred] in *. replace (S (length m)) with (length m + 1)%nat by lia.
      apply add_error; auto; [rewrite S_INR in N; lra|].
      rewrite Rminus_diag_eq, Rabs_R0 by reflexivity.
      apply Rmult_le_pos; [|exact P]. apply Rmult_le_pos; [apply pos_INR|]. unfold step. simpl. lra.
  - apply Forall_app in E as [El Er]. rewrite app_length, plus_INR in N.
    pose proof (pos_INR (length (leaves l))). pose proof (pos_INR (length (leaves r))).
    destruct IHl as (Fl & Pl & Zl & Bl); [exact El | lra |].
    destruct IHr as (Fr' & Pr & Zr & Br); [exact Er | lra |].
    assert (D : dot (leaves l ++ leaves r) = dot (leaves l) + dot (leaves r))
      by (unfold dot, prods; now rewrite map_app, sum_app).
    rewrite D. repeat split; [apply Fr | lra | |].
    + intros Z. apply app_eq_nil in Z as [Z1 Z2].
      rewrite Zl, Zr, Rplus_0_r by assumption. now apply Keep.
    + destruct (leaves l) as [|p m] eqn:L; [|destruct (leaves r) as [|q k] eqn:K].
      * rewrite Zl, Rplus_0_l, Keep by auto. unfold dot at 1 3; simpl. now rewrite !Rplus_0_l.
      * rewrite Zr, Rplus_0_r, Keep by auto. rewrite app_nil_r. unfold dot at 2 4; simpl.
        now rewrite !Rplus_0_r.
      * cbn [length Nat.pred app] in *. rewrite app_length. cbn [length].
        replace (length m + S (length k))%nat with (length m + length k + 1)%nat by lia.
        rewrite !S_INR in N. pose proof (pos_INR (length m)). pose proof (pos_INR (length k)).
        assert (Up : forall a b T, 0 <= T -> INR a * step * T <= INR (a + b) * step * T).
        { intros a b T HT. apply Rmult_le_compat_r; [exact HT|].
          apply Rmult_le_compat_r; [unfold step; simpl; lra|].
          rewrite plus_INR. pose proof (pos_INR b). lra. }
        apply add_error; auto; [rewrite plus_INR; lra| |].
        -- eapply Rle_trans; [exact Bl | now apply Up].
        -- rewrite Nat.add_comm. eapply Rle_trans; [exact Br | now apply Up].
Qed.

Definition approx (s S : R) : Prop := Rabs (s - S) <= 33 / 32 * pow2 (-33) * S.

Theorem any_sum_approx t : Forall exact_product (leaves t) -> INR (length (leaves t)) <= pow2 20 ->
  approx (feval t) (dot (leaves t)).
Proof.
  intros E N. destruct (any_sum_error t E N) as (_ & P & _ & B).
  eapply Rle_trans; [exact B|]. apply Rmult_le_compat_r; [exact P|].
  apply Rle_trans with (pow2 20 * step); [|unfold step; simpl; lra].
  apply Rmult_le_compat_r; [unfold step; simpl; lra|].
  eapply Rle_trans; [|exact N]. apply le_INR. lia.
Qed.

(* `norm` is the L1 norm S of a row as some order of additions gives it, `true` as Exact.total
   does, of which only that it is `approx` is used here.
   (The comparison is exact: its operands have at most 53 bits.) *)
Definition scale (bits : Z) : R := (1 + pow2 (-9)) * pow2 (- bits).
Definition target (bits : Z) (norm : R) : R := rnd (norm * scale bits).
Definition grid_power (bits : Z) (norm true : R) : R :=
  let power := power_below (target bits norm) in
  if Rlt_dec ((1 / 2 - pow2 (-30)) * power) (Rabs (target bits norm - 3 / 2 * power))
  then power_below (target bits true) else power.

Lemma power_below_positive t : F t -> pow2 (-1001) <= t ->
  exists k, power_below t = pow2 k /\ (-1074 <= k)%Z /\ pow2 k <= t < pow2 (k + 1).
Proof.
  intros Ft P. pose proof (bpow_gt_0 radix2 (-1001)).
  destruct (mag radix2 t) as [e He]. specialize (He ltac:(lra)). rewrite Rabs_pos_eq in He by lra.
  exists (e - 1)%Z. replace (e - 1 + 1)%Z with e by lia.
  assert (L : (-1001 < e)%Z) by (apply (lt_bpow radix2); lra).
  repeat split; try apply He; [|lia].
  apply power_below_exact; [lia | exact Ft | now replace (e - 1 + 1)%Z with e by lia].
Qed.

Lemma target_approx bits S s : approx s S -> pow2 (-1000) <= S * scale bits ->
  F (target bits s) /\ pow2 (-1001) <= target bits s /\
  Rabs (target bits s - S * scale bits) <= 34 / 32 * pow2 (-33) * (S * scale bits).
Proof.
  intros A P. unfold target. set (c := scale bits) in *.
  assert (C : 0 < c).
  { unfold c, scale. apply Rmult_lt_0_compat; [simpl; lra | apply bpow_gt_0]. }
  unfold approx in A. apply Rabs_le_inv in A.
  assert (Y : Rabs (s * c - S * c) <= 33 / 32 * pow2 (-33) * (S * c)).
  { rewrite <- Rmult_minus_distr_r, Rabs_mult, (Rabs_pos_eq c) by lra.
    rewrite <- Rmult_assoc. apply Rmult_le_compat_r; [lra|]. apply Rabs_le. lra. }
  apply Rabs_le_inv in Y. set (y := s * c) in *. set (z := S * c) in *. clearbody y z.
  assert (Half : pow2 (-1000) = 2 * pow2 (-1001)).
  { change (-1000)%Z with (1 + -1001)%Z. now rewrite bpow_plus. }
  pose proof (bpow_gt_0 radix2 (-1001)).
  assert (Y0 : pow2 (-1001) < y) by (simpl (bpow radix2 (-33)) in Y; lra).
  pose proof (relative_error_N_FLT radix2 (-1074) 53 eq_refl (fun n => negb (Z.even n)) y) as E.
  rewrite (Rabs_pos_eq y) in E by lra.
  assert (N : pow2 (-1074 + 53 - 1) <= y).
  { eapply Rle_trans; [apply (bpow_le radix2 _ (-1001)); lia | lra]. }
  specialize (E N). apply Rabs_le_inv in E. fold (rnd y) in E.
  replace (/ 2 * pow2 (- (53) + 1)) with (pow2 (-53)) in E by (simpl; lra).
  split; [|split].
  - apply generic_format_round; [exact _ | apply valid_rnd_N].
  - simpl (bpow radix2 (-53)) in E. simpl (bpow radix2 (-33)) in Y. lra.
  - simpl (bpow radix2 (-53)) in E. simpl (bpow radix2 (-33)) in Y |- *. apply Rabs_le. lra.
Qed.

(* Whatever order `norm` was added in, the grid is the one of the true sum. *)
Theorem grid_order_free bits S norm true : approx norm S -> approx true S ->
  pow2 (-1000) <= S * scale bits -> grid_power bits norm true = power_below (target bits true).
Proof.
  intros A B P. destruct (target_approx bits S norm A P) as (Fn & Pn & En).
  destruct (target_approx bits S true B P) as (Ft & Pt & Et).
  unfold grid_power. destruct (power_below_positive _ Fn Pn) as (k & -> & Hk & _).
  destruct (Rlt_dec _ _) as [C|C]; [reflexivity|]. apply Rnot_lt_le in C.
  symmetry. apply power_below_exact; [exact Hk | exact Ft |].
  apply Rabs_le_inv in C, En, Et. rewrite bpow_plus. simpl (bpow radix2 1).
  simpl (bpow radix2 (-30)) in C. simpl (bpow radix2 (-33)) in En, Et.
  set (z := S * scale bits) in *.
  set (tn := target bits norm) in *. set (tt := target bits true) in *.
  pose proof (bpow_gt_0 radix2 k) as K. clearbody z tn tt. lra.
Qed.

(* On that grid, twice the power, the row fits: K <= 2^20 roundings by half a step do no harm. *)
Lemma sum_near u rs xs : Forall2 (near u) rs xs ->
  sumabs rs <= sumabs xs + INR (length xs) * (pow2 u / 2).
Proof.
  induction 1 as [|r x rs xs [_ H] _ IH]; [unfold sumabs; simpl; lra|].
  cbn [length]. rewrite S_INR. unfold sumabs in *. cbn [map sum fold_right] in *.
  pose proof (Rabs_triang (r - x) x) as T. replace (r - x + x) with r in T by ring.
  unfold sum in *. lra.
Qed.

Theorem grid_bound bits k xs rs norm true : (29 <= bits)%Z -> INR (length xs) <= pow2 20 ->
  approx norm (sumabs xs) -> approx true (sumabs xs) -> pow2 (-1000) <= sumabs xs * scale bits ->
  grid_power bits norm true = pow2 k -> Forall2 (near (k + 1)) rs xs ->
  sumabs rs <= pow2 (bits + (k + 1)).
Proof.
  intros Hb K A B P G N. rewrite (grid_order_free bits _ norm true A B P) in G.
  destruct (target_approx bits _ true B P) as (Ft & Pt & Et).
  destruct (power_below_positive _ Ft Pt) as (j & Hj & _ & _ & Lt). rewrite Hj in G.
  assert (J : j = k) by (apply (bpow_inj radix2); exact G). subst j.
  eapply Rle_trans; [exact (sum_near _ _ _ N)|].
  set (S := sumabs xs) in *. set (u := (k + 1)%Z) in *. apply Rabs_le_inv in Et.
  pose proof (bpow_gt_0 radix2 u) as U.
  assert (R : INR (length xs) * (pow2 u / 2) <= pow2 20 * (pow2 u / 2))
    by (apply Rmult_le_compat_r; lra).
  (* S (1 + 2^-9) (1 - 2^-32) < 2^bits 2^u, and 2^20 / 2 <= 2^-10 2^bits *)
  assert (X : S * scale bits * (1 - 34 / 32 * pow2 (-33)) < pow2 u) by lra.
  assert (Inv : pow2 bits * pow2 (- bits) = 1).
  { rewrite <- bpow_plus. now replace (bits + - bits)%Z with 0%Z by lia. }
  pose proof (Rmult_lt_compat_l _ _ _ (bpow_gt_0 radix2 bits) X) as Y. unfold scale in Y.
  replace (pow2 bits * _)
    with (pow2 bits * pow2 (- bits) * (S * ((1 + pow2 (-9)) * (1 - 34 / 32 * pow2 (-33))))) in Y
    by ring.
  rewrite Inv in Y.
  assert (W : pow2 29 * pow2 u <= pow2 bits * pow2 u).
  { apply Rmult_le_compat_r; [lra | apply bpow_le; lia]. }
  assert (S0 : 0 <= S) by apply sumabs_nonneg.
  rewrite bpow_plus. set (T := pow2 bits * pow2 u) in *. clearbody S T. simpl bpow in *. lra.
Qed.

Print Assumptions power_below_exact.
Print Assumptions round_to_near.
Print Assumptions round_to_fixed.
Print Assumptions near_bounded.
Print Assumptions any_sum_approx.
Print Assumptions grid_order_free.
Print Assumptions grid_bound.
