(* GridOrder.v -- `grid`, which is Exact.grid: whatever order an estimate is added in, whether or
   not a machine doubts, the grid is the one that `total` gives.  Nothing is assumed of bounds. *)
From Coq Require Import ZArith Reals List Permutation Lia Lra Bool Floats.
From Flocq Require Import Core BinarySingleNaN PrimFloat.
From Minikv Require Import Exactness Grids Binary64 Values Machine Total.
From Minikv Require Decoder.
Import ListNotations.
Open Scope R_scope.
#[local] Existing Instances Binary64.Hprec Binary64.Hmax.
#[local] Instance valid_exp : Valid_exp fexp64 := FLT_exp_valid (-1074) 53.
#[local] Opaque one.

(* A sum that rounds, in any order: bounds as for the real numbers of Grids.v. *)
Fixpoint rtree (t : btree) : tree :=
  match t with
  | BZero => Zero | BNum x => Num (B2R x) | BMul x w => Mul (B2R x) (B2R w)
  | BFma x w a => Fma (B2R x) (B2R w) (rtree a) | BAdd l r => Add (rtree l) (rtree r)
  end.
Lemma rtree_leaves t : leaves (rtree t) = map real2 (bleaves t).
Proof.
  induction t; simpl; unfold real2; cbn [fst snd]; rewrite ?V_one; auto.
  - now rewrite IHt.
  - now rewrite map_app, IHt1, IHt2.
Qed.
Lemma feval_bound t : Forall exact_product (leaves t) -> INR (length (leaves t)) <= pow2 20 ->
  0 <= dot (leaves t) /\ 0 <= feval t <= 2 * dot (leaves t).
Proof.
  intros E K. destruct (any_sum_error t E K) as (_ & P & _ & Er).
  assert (Q : INR (Nat.pred (length (leaves t))) * step <= 1 / 2).
  { apply Rle_trans with (pow2 20 * step).
    - apply Rmult_le_compat_r; [unfold step; simpl; lra|]. eapply Rle_trans; [|exact K].
    apply le_INR. lia.
    - unfold step. simpl. lra. }
  assert (Er' : Rabs (feval t - dot (leaves t)) <= 1 / 2 * dot (leaves t)).
  { eapply Rle_trans; [exact Er|]. now apply Rmult_le_compat_r. }
  apply Rabs_le_inv in Er'. split; [exact P | lra].
Qed.

Lemma rounding_tree t : Forall finite2 (bleaves t) ->
  Forall exact_product (map real2 (bleaves t)) ->
  INR (length (bleaves t)) <= pow2 20 -> bdot (bleaves t) <= pow2 900 ->
  is_finite (beval t) = true /\ B2R (beval t) = feval (rtree t).
Proof.
  intros Fi E K Bd. unfold bdot in Bd. rewrite <- rtree_leaves in *.
  assert (K' : INR (length (leaves (rtree t))) <= pow2 20) by (rewrite rtree_leaves, map_length;
    exact K).
  clear K. revert Fi E K' Bd.
  assert (Le : forall a, a <= pow2 900 -> 0 <= a -> Rabs (2 * a) <= pow2 1000).
  { intros a H0 H1. rewrite Rabs_pos_eq by lra. apply Rle_trans with (2 * pow2 900); [lra|].
    replace (2 * pow2 900) with (pow2 901); [apply up; lia|].
    change 901%Z with (1 + 900)%Z. rewrite bpow_plus. simpl (bpow radix2 1). lra. }
  assert (Small : forall z a, 0 <= z <= 2 * a -> a <= pow2 900 -> Rabs z <= pow2 1000).
  { intros z a H0 H1. rewrite Rabs_pos_eq by lra. eapply Rle_trans; [apply H0|].
    eapply Rle_trans; [apply Rle_abs | apply Le; lra]. }
  induction t as [|x|x w|x w a IH|l IHl r IHr]; cbn [bleaves beval rtree leaves feval];
    intros Fi E K Bd.
  - now split.
  - apply Forall_inv in Fi as [Fx _]. now split.
  - apply Forall_inv in Fi as [Fx Fw]. apply Forall_inv in E as [P _]. cbn [fst snd] in *.
    pose proof (Bmult_correct 53%Z 1024%Z Binary64.Hprec Binary64.Hmax rne x w) as C.
    rewrite no_over, Fx, Fw in C; [now split; apply C|].
    apply (Small _ (B2R x * B2R w)); [lra|]. change (B2R x * B2R w + 0 <= pow2 900) in Bd. lra.
  - pose proof (Forall_inv Fi) as [Fx Fw]. apply Forall_inv_tail in Fi.
    pose proof (Forall_inv E) as [P _]. pose proof (Forall_inv_tail E) as E'. cbn [fst snd] in *.
    cbn [length] in K. rewrite S_INR in K.
    assert (K' : INR (length (leaves (rtree a))) <= pow2 20) by lra.
    destruct (feval_bound (rtree a) E' K') as [Pa Ba].
    change (dot ((B2R x, B2R w) :: leaves (rtree a))) with (B2R x * B2R w +
      dot (leaves (rtree a))) in Bd.
    destruct (IH Fi E' K' ltac:(lra)) as [Fa Va].
    pose proof (Bfma_correct 53%Z 1024%Z Binary64.Hprec Binary64.Hmax rne x w (beval a) Fx Fw Fa) as
      C.
    cbv zeta in C. rewrite Va, no_over in C; [now split; apply C|].
    apply (Small _ (B2R x * B2R w + dot (leaves (rtree a)))); lra.
  - apply Forall_app in Fi as [Fl Fr]. apply Forall_app in E as [El Er].
    rewrite app_length, plus_INR in K.
    pose proof (pos_INR (length (leaves (rtree l)))).
    pose proof (pos_INR (length (leaves (rtree r)))).
    assert (Kl : INR (length (leaves (rtree l))) <= pow2 20) by lra.
    assert (Kr : INR (length (leaves (rtree r))) <= pow2 20) by lra.
    destruct (feval_bound _ El Kl) as [Pl Bl], (feval_bound _ Er Kr) as [Pr Br].
    assert (D : dot (leaves (rtree l) ++ leaves (rtree r)) = dot (leaves (rtree l)) +
      dot (leaves (rtree r)))
      by (unfold dot, prods; now rewrite map_app, sum_app).
    rewrite D in Bd. destruct (IHl Fl El Kl ltac:(lra)) as [F1 V1],
      (IHr Fr Er Kr ltac:(lra)) as [F2 V2].
    pose proof (Bplus_correct 53%Z 1024%Z Binary64.Hprec Binary64.Hmax rne (beval l) (beval r) F1
      F2) as C.
    rewrite V1, V2, no_over in C; [now split; apply C|].
    apply (Small _ (dot (leaves (rtree l)) + dot (leaves (rtree r)))); lra.
Qed.

Theorem estimate_val M ys : orderly M -> Forall fin ys -> (forall y, In y ys -> 0 <= V y) ->
  short ys ->
  sum (map V ys) <= pow2 900 ->
  fin (D.estimate M ys) /\ approx (V (D.estimate M ys)) (sum (map V ys)).
Proof.
  intros O Fi Pos K Bd. destruct (orderly_estimate M O ys) as (t & pad & Z & P & Kt & E).
  specialize (Kt K).
  assert (Fp : Forall finite2 (singles ys ++ pad)).
  { apply Forall_app. split.
    - unfold singles. apply Forall_map. eapply Forall_impl; [|exact Fi]. intros y Fy.
    split; [exact Fy | exact fin_one].
    - eapply Forall_impl; [|exact Z]. now intros p []. }
  assert (Ep : Forall exact_product (map real2 (singles ys ++ pad))).
  { rewrite map_app. apply Forall_app. split.
    - rewrite singles_real. apply Forall_map, Forall_map, Forall_forall. intros y I.
    split; cbn [fst snd]; rewrite Rmult_1_r.
      + now apply Pos.
      + apply V_format.
    - apply Forall_map. eapply Forall_impl; [|exact Z]. intros p [_ H].
    split; unfold real2; cbn [fst snd]; rewrite H.
      + lra.
      + apply generic_format_0. }
  apply Permutation_sym in P.
  assert (Ds : bdot (bleaves t) = sum (map V ys)).
  { assert (Q : Permutation (prods (map real2 (bleaves t))) (prods (map real2 (singles ys ++
    pad)))).
    { apply Permutation_map, Permutation_map, Permutation_sym, P. }
    unfold bdot, dot. rewrite (sum_perm _ _ Q), map_app. unfold prods. rewrite map_app, sum_app.
    fold (prods (map real2 pad)). rewrite (proj1 (zeros_sums pad Z)), Rplus_0_r, singles_real.
    exact (dot_singles (map V ys)). }
  assert (Et : Forall exact_product (map real2 (bleaves t))) by
    exact (Permutation_Forall (Permutation_map real2 P) Ep).
  destruct (rounding_tree t (Permutation_Forall P Fp) Et Kt) as [F1 V1]; [now rewrite Ds|].
  unfold fin, V. rewrite E. split; [exact F1|]. rewrite V1. unfold V. fold V. rewrite <- Ds.
  unfold bdot.
  rewrite <- rtree_leaves. apply any_sum_approx; rewrite rtree_leaves;
    [exact Et | now rewrite map_length].
Qed.

(* The power below `norm * scale`, for any norm that is approximately S. *)
Lemma norm_power bits scale S nrm : (29 <= bits <= 50)%Z -> fin scale ->
  V scale = Grids.scale bits ->
  pow2 (-400) <= S <= pow2 420 -> fin nrm -> approx (V nrm) S ->
  let T := target bits (V nrm) in let t := (nrm * scale)%float in
  fin t /\ V t = T /\ exists k, (-461 <= k <= 431)%Z /\ pow2 k <= T < pow2 (k + 1) /\
    power_below T = pow2 k /\
  fin (D.power_below t) /\ V (D.power_below t) = pow2 k.
Proof.
  intros Hb Fs Vs [S1 S2] Ft At T t.
  assert (C0 : pow2 (- bits) <= Grids.scale bits <= 2 * pow2 (- bits)).
  { unfold Grids.scale. pose proof (bpow_gt_0 radix2 (- bits)). simpl (bpow radix2 (-9)). lra. }
  pose proof (bpow_ge_0 radix2 (-400)) as P400. pose proof (bpow_ge_0 radix2 (- bits)) as Pb.
  assert (Low : pow2 (-460) <= S * Grids.scale bits).
  { apply Rle_trans with (pow2 (-400) * pow2 (- bits)).
    - rewrite <- bpow_plus. apply up. lia.
    - apply Rmult_le_compat; lra. }
  destruct (target_approx bits S (V nrm) At) as (Fg & Pg & Eg).
  { eapply Rle_trans; [|exact Low]. apply up. lia. }
  fold T in Fg, Pg, Eg.
  assert (Hi : S * Grids.scale bits <= pow2 430).
  { apply Rle_trans with (pow2 420 * pow2 1).
    - apply Rmult_le_compat; try lra. apply Rle_trans with (2 * pow2 (- bits)); [lra|].
    simpl (bpow radix2 1).
      assert (pow2 (- bits) <= pow2 0) by (apply up; lia). simpl (bpow radix2 0) in *. lra.
    - rewrite <- bpow_plus. apply up. lia. }
  apply Rabs_le_inv in Eg. simpl (bpow radix2 (-33)) in Eg.
  assert (P430 : 0 < pow2 430) by apply bpow_gt_0.
  assert (P431 : pow2 431 = 2 * pow2 430).
  { change 431%Z with (1 + 430)%Z. rewrite bpow_plus. simpl (bpow radix2 1). lra. }
  assert (Tb : T <= pow2 431) by lra.
  assert (Ab : Rabs (V nrm * Grids.scale bits) <= pow2 1000).
  { unfold approx in At. apply Rabs_le_inv in At. simpl (bpow radix2 (-33)) in At.
    rewrite Rabs_pos_eq by (apply Rmult_le_pos; lra).
    apply Rle_trans with (2 * S * Grids.scale bits).
    - apply Rmult_le_compat_r; lra.
    - apply Rle_trans with (pow2 431); [lra | apply up; lia]. }
  destruct (mul_val nrm scale Ft Fs) as [Vg Fm]; [now rewrite Vs|].
  rewrite Vs in Vg. fold (target bits (V nrm)) in Vg. fold T in Vg. fold t in Vg, Fm.
  split; [exact Fm|]. split; [exact Vg|].
  destruct (power_below_pow2 t Fm) as (k & Vp & Fp & _ & Kb).
  { rewrite Vg. split; [exact Pg | eapply Rle_trans; [exact Tb | apply up; lia]]. }
  rewrite Vg in Kb. exists k. split.
  { split; [apply Z.lt_succ_r, (lt_bpow radix2); unfold Z.succ | apply (le_bpow radix2); lra].
    apply Rle_lt_trans with T; [|apply Kb].
    assert (E : pow2 (-460) = 2 * pow2 (-461)).
    { change (-460)%Z with (1 + -461)%Z. rewrite bpow_plus. simpl (bpow radix2 1). lra. }
    pose proof (bpow_gt_0 radix2 (-461)). lra. }
  split; [exact Kb|]. split; [|now split].
  rewrite <- Vp. symmetry. rewrite <- Vg. apply power_below_val; [exact Fm|].
  rewrite Vg. split; [pose proof (bpow_ge_0 radix2 (-1001)); lra|].
  eapply Rle_trans; [exact Tb | apply up; lia].
Qed.

(* The comparison in `grid` is exact. *)
Theorem close_val t p k : fin t -> fin p -> V p = pow2 k -> (-461 <= k <= 431)%Z ->
  pow2 k <= V t < pow2 (k + 1) ->
  (0x1.fffffff0p-2 * p <? abs (t - 1.5 * p))%float
  = Rlt_bool ((1 / 2 - pow2 (-30)) * pow2 k) (Rabs (V t - 3 / 2 * pow2 k)).
Proof.
  intros Ft Fp Vp Kr Kb. pose proof (bpow_gt_0 radix2 k) as P.
  assert (K1 : pow2 (k + 1) = 2 * pow2 k) by (rewrite bpow_plus; simpl (bpow radix2 1); lra).
  assert (Va : V 0x1.fffffff0p-2 = 1 / 2 - pow2 (-30)) by (value; simpl; lra).
  assert (Vb : V 1.5 = 3 / 2) by (value; simpl; lra).
  assert (Big : forall r, 0 <= r <= 2 * pow2 k -> Rabs r <= pow2 1000).
  { intros r R. rewrite Rabs_pos_eq by lra. apply Rle_trans with (pow2 (k + 1));
    [lra | apply up; lia]. }
  assert (Fmt : forall n e, (Z.abs n <= 2^53)%Z -> (-1074 <= e)%Z ->
    rnd (IZR n * pow2 e) = IZR n * pow2 e).
  { intros n e Hn He. apply round_generic; [apply valid_rnd_N | now apply int_format]. }
  destruct (mul_val 0x1.fffffff0p-2 p) as [V1 F1]; [finite | exact Fp | |].
  { rewrite Va, Vp. apply Big. simpl (bpow radix2 (-30)). lra. }
  assert (E1 : (1 / 2 - pow2 (-30)) * pow2 k = IZR (2^29 - 1) * pow2 (k - 30)).
  { unfold Zminus at 2. rewrite bpow_plus. simpl. lra. }
  rewrite Va, Vp, E1, Fmt, <- E1 in V1 by lia.
  destruct (mul_val 1.5 p) as [V2 F2]; [finite | exact Fp | |].
  { rewrite Vb, Vp. apply Big. lra. }
  assert (E2 : 3 / 2 * pow2 k = IZR 3 * pow2 (k - 1)).
  { unfold Zminus. rewrite bpow_plus. simpl (bpow radix2 (- (1))). lra. }
  rewrite Vb, Vp, E2, Fmt, <- E2 in V2 by lia.
  assert (G : on_grid (k - 52) (V t)).
  { pose proof (binade_grid (k - 52) (V t) ltac:(lia)) as G.
    replace (52 + (k - 52))%Z with k in G by lia.
    replace (53 + (k - 52))%Z with (k + 1)%Z in G by lia.
    specialize (G Kb). unfold rnd in G. now rewrite round_generic in G by
      (apply valid_rnd_N || apply V_format). }
  assert (G3 : on_grid (k - 52) (V t - 3 / 2 * pow2 k)).
  { destruct G as [n ->]. exists (n - 3 * 2^51)%Z. rewrite minus_IZR, Rmult_minus_distr_r. f_equal.
    replace k with (52 + (k - 52))%Z at 1 by lia. rewrite pow2_split by lia. simpl IZR. lra. }
  destruct (sub_val t (1.5 * p) Ft F2) as [V3 F3].
  { rewrite V2. apply Rle_trans with (pow2 k); [apply Rabs_le; lra | apply up; lia]. }
  rewrite V2, (rnd_grid (k - 52)) in V3; [| lia | exact G3 |].
  2: { apply Rle_trans with (pow2 k); [apply Rabs_le; lra | apply up; lia]. }
  destruct (abs_val (t - 1.5 * p)%float) as [V4 F4]. rewrite ltb_val by auto.
  now rewrite V1, V4, V3.
Qed.

(* Every machine finds the grid of `total`, whatever it estimates and whether or not it doubts. *)
Theorem grid_is_total M bits scale xs : orderly M -> (29 <= bits <= 50)%Z -> fin scale ->
  V scale = Grids.scale bits ->
  Forall moderate xs -> (exists x, In x xs /\ V x <> 0) -> short xs ->
  D.grid M scale xs = grid_total M scale xs.
Proof.
  intros O Hb Fs Vs Mo (x0 & I0 & N0) K. unfold D.grid, grid_total. cbv zeta.
  set (ys := map abs xs).
  assert (Ya : map V ys = map Rabs (map V xs)).
  { unfold ys. rewrite !map_map. apply map_ext. intros x. apply abs_val. }
  assert (My : Forall moderate ys).
  { unfold ys. apply Forall_map. eapply Forall_impl; [|exact Mo]. intros x [Fx Bx].
    destruct (abs_val x) as [E Fa]. split; [now apply Fa|]. rewrite E, Rabs_Rabsolu.
    destruct Bx as [Z | Bx]; [left; rewrite Z; apply Rabs_R0 | now right]. }
  assert (Py : forall y, In y ys -> 0 <= V y).
  { intros y I. apply in_map_iff in I as (x & <- & _). destruct (abs_val x) as [-> _].
  apply Rabs_pos. }
  assert (Ky : short ys) by (unfold short, ys; now rewrite map_length).
  assert (Iy : In (abs x0) ys) by now apply in_map.
  assert (Ny : V (abs x0) <> 0) by (destruct (abs_val x0) as [-> _]; now apply Rabs_no_R0).
  destruct (total_val M ys O My Py) as (Ft & At & _); [now exists (abs x0) | exact Ky |].
  set (S := sum (map V ys)) in *.
  assert (S1 : pow2 (-400) <= S).
  { pose proof (proj1 (Forall_forall _ _) My _ Iy) as [_ [Z | [B1 _]]]; [easy|].
    rewrite Rabs_pos_eq in B1 by now apply Py. eapply Rle_trans; [exact B1 | now apply sum_ge_each].
    }
  assert (S2 : S <= pow2 420).
  { unfold S. rewrite <- (Rabs_pos_eq (sum _)) by now apply sum_nonneg.
    eapply Rle_trans; [apply (sum_le_count _ _ (pow2 400))|].
    - intros y I. pose proof (proj1 (Forall_forall _ _) My y I) as [_ [Z | [_ B2]]]; [|exact B2].
      rewrite Z, Rabs_R0. apply bpow_ge_0.
    - change 420%Z with (20 + 400)%Z. rewrite bpow_plus.
    apply Rmult_le_compat_r; [apply bpow_ge_0 | exact Ky]. }
  destruct (estimate_val M ys O) as [Fe Ae]; auto.
  { eapply Forall_impl; [|exact My]. now intros y []. }
  { eapply Rle_trans; [exact S2 | apply up; lia]. }
  fold S in Ae. set (est := D.estimate M ys) in *. set (tot := D.total M ys) in *.
  destruct (norm_power bits scale S est Hb Fs Vs (conj S1 S2) Fe Ae) as
    (F1 & V1 & k & Kr & Kb & Kp & Fp & Vp).
  destruct (norm_power bits scale S tot Hb Fs Vs (conj S1 S2) Ft At) as
    (F2 & V2 & l & Lr & Lb & Lp & Fq & Vq).
  assert (Low : pow2 (-1000) <= S * Grids.scale bits).
  { apply Rle_trans with (pow2 (-400) * pow2 (- bits)); [rewrite <- bpow_plus; apply up; lia|].
    pose proof (bpow_ge_0 radix2 (-400)). pose proof (bpow_ge_0 radix2 (- bits)).
    unfold Grids.scale. simpl (bpow radix2 (-9)). apply Rmult_le_compat; lra. }
  pose proof (grid_order_free bits S (V est) (V tot) Ae At Low) as G.
  unfold grid_power in G. rewrite Kp, Lp in G.
  rewrite (close_val (est * scale) _ k F1 Fp Vp Kr) by now rewrite V1. rewrite V1.
  f_equal. destruct (D.doubts M xs); [now rewrite orb_true_r|]. rewrite orb_false_r.
  destruct (Rlt_bool_spec ((1 / 2 - pow2 (-30)) *
    pow2 k) (Rabs (target bits (V est) - 3 / 2 * pow2 k))) as [C | C];
    [reflexivity|].
  destruct (Rlt_dec _ _) as [C' | _] in G; [lra|].
  apply same_value; auto; [congruence|]. rewrite Vp. pose proof (bpow_gt_0 radix2 k). lra.
Qed.

Theorem grid_val M bits scale xs : orderly M -> (29 <= bits <= 50)%Z -> fin scale ->
  V scale = Grids.scale bits ->
  Forall moderate xs -> (exists x, In x xs /\ V x <> 0) -> short xs ->
  exists u, V (D.grid M scale xs) = pow2 u /\ pow2 u = 2 *
    power_below (target bits (total_real (map abs xs))) /\
  fin (D.grid M scale xs) /\ (-500 <= u <= 500)%Z /\
  (forall x, In x xs -> Rabs (V x) <= pow2 (51 + u)) /\
  forall rs, Forall2 (near u) rs (map V xs) -> sumabs rs <= pow2 (bits + u).
Proof.
  intros O Hb Fs Vs Mo N K. rewrite (grid_is_total M bits) by auto. now apply grid_total_val.
Qed.

Print Assumptions estimate_val.
Print Assumptions close_val.
Print Assumptions grid_is_total.
Print Assumptions grid_val.
