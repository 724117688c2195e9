(* Total.v -- `total`, which is Exact.total: in any order the same, and approximately the sum.  So
   is the grid that follows from it. *)
From Coq Require Import ZArith Reals List Permutation Lia Lra Bool Floats.
From Flocq Require Import Core BinarySingleNaN PrimFloat.
From Minikv Require Import Exactness Grids Binary64 Values Machine.
From Minikv Require Decoder.
Import ListNotations.
Open Scope R_scope.
#[local] Existing Instances Binary64.Hprec Binary64.Hmax.
#[local] Instance valid_exp : Valid_exp fexp64 := FLT_exp_valid (-1074) 53.
#[local] Opaque one.

(* Zero, or far from overflow and underflow: float32 numbers, and what the decoder makes of them. *)
Definition moderate (x : float) : Prop :=
  fin x /\ (V x = 0 \/ pow2 (-400) <= Rabs (V x) <= pow2 400).
Definition short {A} (xs : list A) : Prop := INR (length xs) <= pow2 20.

(** * Exact.total *)
Lemma rnd_error z e : (-1022 <= e)%Z -> Rabs z <= pow2 e -> Rabs (rnd z - z) <= pow2 (e - 53).
Proof.
  intros He H. eapply Rle_trans; [apply error_le_half_ulp; exact _|].
  apply Rle_trans with (/ 2 * ulp radix2 fexp64 (pow2 e)).
  - apply Rmult_le_compat_l; [lra|]. apply ulp_le; [exact _ | exact _|].
    now rewrite (Rabs_pos_eq (pow2 e)) by apply bpow_ge_0.
  - rewrite ulp_bpow. unfold FLT_exp. replace (Z.max _ _) with (1 + (e - 53))%Z by lia.
    rewrite bpow_plus. simpl (bpow radix2 1). lra.
Qed.

(* The two parts of one number: multiples of 2^v and 2^(v-31), together off by at most 2^(v-31). *)
Lemma split_val x s v : fin x -> fin s -> V s = pow2 v * (3 / 2 * pow2 52) ->
  (-900 <= v <= 800)%Z ->
  0 <= V x < pow2 (31 + v) ->
  let h := D.round x s in let l := D.round (x - h) (s * 0x1p-31) in
  (fin h /\ on_grid v (V h) /\ Rabs (V h) <= pow2 (31 + v)) /\
  (fin l /\ on_grid (v - 31) (V l) /\ Rabs (V l) <= pow2 (30 + (v - 31))) /\
  Rabs (V h + V l - V x) <= pow2 (v - 31).
Proof.
  intros Fx Fs S U X h l. pose proof (bpow_gt_0 radix2 v) as P.
  assert (X' : Rabs (V x) <= pow2 (31 + v)) by (rewrite Rabs_pos_eq; lra).
  destruct (round_val x s v Fs Fx S) as (_ & Fh & Nh); [lia | |].
  { eapply Rle_trans; [exact X' | apply up; lia]. }
  fold h in Fh, Nh. assert (Bh : Rabs (V h) <= pow2 (31 + v)) by (apply (near_bounded 31 v _ (V x));
    auto; lia).
  destruct Nh as [Gh Eh].
  assert (D : Rabs (V x - V h) <= pow2 (v - 1)).
  { rewrite Rabs_minus_sym. eapply Rle_trans; [exact Eh|]. unfold Zminus. rewrite bpow_plus. simpl.
  lra. }
  destruct (sub_val x h Fx Fh) as [Vd Fd]; [eapply Rle_trans; [exact D | apply up; lia]|].
  assert (D' : Rabs (V (x - h)) <= pow2 (30 + (v - 31))).
  { rewrite Vd. apply rnd_le; [lia|]. now replace (30 + (v - 31))%Z with (v - 1)%Z by lia. }
  pose proof (rnd_error _ (v - 1) ltac:(lia) D) as Ed. rewrite <- Vd in Ed.
  assert (S31 : V 0x1p-31 = pow2 (-31)) by (value; simpl; lra).
  assert (T : pow2 v * (3 / 2 * pow2 52) * pow2 (-31) = pow2 (v - 31) * (3 / 2 * pow2 52)).
  { unfold Zminus. rewrite bpow_plus. change (- (31))%Z with (-31)%Z. ring. }
  destruct (mul_val s 0x1p-31) as [Vs Fs']; [exact Fs | finite | |].
  { rewrite S, S31, T. pose proof (bpow_gt_0 radix2 (v - 31)).
    rewrite Rabs_pos_eq by (simpl; lra). apply Rle_trans with (pow2 (53 + (v - 31)));
      [|apply up; lia].
    rewrite (pow2_split 53) by lia. simpl. lra. }
  rewrite S, S31, T, grid_shift in Vs by lia.
  destruct (round_val (x - h) (s * 0x1p-31) (v - 31) Fs' Fd Vs) as (_ & Fl & Nl); [lia | |].
  { eapply Rle_trans; [exact D' | apply up; lia]. }
  fold l in Fl, Nl.
  assert (Bl : Rabs (V l) <= pow2 (30 + (v - 31))) by (apply (near_bounded 30 _ _ (V (x - h)));
    auto; lia).
  destruct Nl as [Gl El]. repeat split; auto.
  replace (V h + V l - V x) with ((V l - V (x - h)) + (V (x - h) - (V x - V h))) by ring.
  eapply Rle_trans; [apply Rabs_triang|].
  apply Rle_trans with (pow2 (v - 31) / 2 + pow2 (v - 1 - 53)); [lra|].
  assert (E : pow2 (v - 31) = IZR (2^23) * pow2 (v - 1 - 53)).
  { rewrite <- pow2_split by lia. f_equal. lia. }
  pose proof (bpow_gt_0 radix2 (v - 1 - 53)). rewrite E. simpl IZR. lra.
Qed.

Lemma map2_map {A B C} (f : A -> B -> C) (g : A -> B) xs :
  D.map2 f xs (map g xs) = map (fun x => f x (g x)) xs.
Proof. induction xs; simpl; congruence. Qed.

Lemma sum_le_count {A} (f : A -> R) xs c : (forall x, In x xs -> Rabs (f x) <= c) ->
  Rabs (sum (map f xs)) <= INR (length xs) * c.
Proof.
  induction xs as [|x xs IH]; intros H; [simpl; rewrite Rabs_R0; lra|].
  cbn [length map]. rewrite S_INR. unfold sum in *. cbn [fold_right].
  eapply Rle_trans; [apply Rabs_triang|].
  pose proof (H x (or_introl eq_refl)). pose proof (IH (fun y Hy => H y (or_intror Hy))). lra.
Qed.
Lemma sum_map_plus {A} (f g : A -> R) xs : sum (map (fun x => f x + g x) xs) = sum (map f xs) +
  sum (map g xs).
Proof. induction xs; simpl; lra. Qed.
Lemma sum_map_opp {A} (f : A -> R) xs : sum (map (fun x => - f x) xs) = - sum (map f xs).
Proof. induction xs; simpl; lra. Qed.
Lemma sum_nonneg xs : (forall y, In y xs -> 0 <= V y) -> 0 <= sum (map V xs).
Proof.
  induction xs as [|x xs IH]; intros H; simpl; [lra|].
  pose proof (H x (or_introl eq_refl)). pose proof (IH (fun y Hy => H y (or_intror Hy))). lra.
Qed.
Lemma sum_ge_each xs x : (forall y, In y xs -> 0 <= V y) -> In x xs -> V x <= sum (map V xs).
Proof.
  induction xs as [|y xs IH]; intros H I; [easy|].
  pose proof (H y (or_introl eq_refl)). pose proof (sum_nonneg xs (fun z Hz => H z (or_intror Hz))).
  destruct I as [<- | I]; simpl; [lra|]. pose proof (IH (fun z Hz => H z (or_intror Hz)) I). lra.
Qed.

Definition total_shift (xs : list float) : float :=
  (D.power_below (D.largest xs) * (0x1p-30 * D.ROUND))%float.
Definition total_real (xs : list float) : R :=
  let high x := D.round x (total_shift xs) in
  let low x := D.round (x - high x) (total_shift xs * 0x1p-31) in
  rnd (sum (map (fun x => V (high x)) xs) + sum (map (fun x => V (low x)) xs)).

Theorem total_val M xs : orderly M -> Forall moderate xs -> (forall x, In x xs -> 0 <= V x) ->
  (exists x, In x xs /\ V x <> 0) -> short xs ->
  fin (D.total M xs) /\ approx (V (D.total M xs)) (sum (map V xs)) /\
  V (D.total M xs) = total_real xs.
Proof.
  intros O Mo Pos (x0 & I0 & N0) K.
  assert (Fi : Forall fin xs) by (eapply Forall_impl; [|exact Mo]; now intros x []).
  destruct (largest_val xs) as [Im Lm]; [intros ->; easy | exact Fi |].
  set (m := D.largest xs) in *.
  pose proof (proj1 (Forall_forall _ _) Mo m Im) as [Fm Bm].
  pose proof (Pos m Im) as Pm. rewrite Rabs_pos_eq in Bm by exact Pm.
  assert (Nm : V m <> 0) by (pose proof (Lm x0 I0); pose proof (Pos x0 I0); lra).
  destruct Bm as [Bm | Bm]; [easy|].
  destruct (power_below_pow2 m Fm) as (k & Vp & Fp & _ & Km).
  { split; [eapply Rle_trans; [|apply Bm] | eapply Rle_trans; [apply Bm|]]; apply up; lia. }
  assert (Kb : (-401 <= k <= 400)%Z).
  { split; [apply Z.lt_succ_r, (lt_bpow radix2); unfold Z.succ | apply (le_bpow radix2)]; [|lra].
    apply Rle_lt_trans with (V m); [|lra]. eapply Rle_trans; [|apply Bm]. apply up. lia. }
  set (v := (k - 30)%Z).
  unfold D.total. fold m. set (c := (0x1p-30 * D.ROUND)%float).
  assert (Vc : V c = 3 / 2 * pow2 22) by (unfold c; value; simpl; lra).
  set (s := (D.power_below m * c)%float).
  assert (T : pow2 k * (3 / 2 * pow2 22) = pow2 v * (3 / 2 * pow2 52)).
  { replace k with (30 + v)%Z by (unfold v; lia). rewrite pow2_split by lia. simpl. lra. }
  destruct (mul_val (D.power_below m) c) as [Vs Fs]; [exact Fp | unfold c; finite | |].
  { rewrite Vp, Vc, T. pose proof (bpow_gt_0 radix2 v). rewrite Rabs_pos_eq by (simpl; lra).
    apply Rle_trans with (pow2 (53 + v)); [|apply up; unfold v; lia]. rewrite pow2_split by lia.
    simpl. lra. }
  fold s in Vs, Fs. rewrite Vp, Vc, T, grid_shift in Vs by (unfold v; lia).
  rewrite map2_map.
  set (hi := fun x => D.round x s). set (lo := fun x => D.round (x - hi x) (s * 0x1p-31)).
  change (map (fun x => D.round x s) xs) with (map hi xs).
  change (map (fun x => D.round (x - D.round x s) (s * 0x1p-31)) xs) with (map lo xs).
  assert (Sp : forall x, In x xs ->
    (fin (hi x) /\ on_grid v (V (hi x)) /\ Rabs (V (hi x)) <= pow2 (31 + v)) /\
    (fin (lo x) /\ on_grid (v - 31) (V (lo x)) /\ Rabs (V (lo x)) <= pow2 (30 + (v - 31))) /\
    Rabs (V (hi x) + V (lo x) - V x) <= pow2 (v - 31)).
  { intros x I. apply split_val; auto; [exact (proj1 (Forall_forall _ _) Fi x I) | unfold v; lia |].
    split; [now apply Pos|]. eapply Rle_lt_trans; [now apply Lm|].
    replace (31 + v)%Z with (k + 1)%Z by (unfold v; lia). apply Km. }
  assert (SumOf : forall f u A, (20 + A <= 53)%Z -> (-1074 <= u <= 970)%Z ->
    (forall x, In x xs -> fin (f x) /\ on_grid u (V (f x)) /\ Rabs (V (f x)) <= pow2 (A + u)) ->
    fin (D.sum M (map f xs)) /\ V (D.sum M (map f xs)) = sum (map (fun x => V (f x)) xs) /\
    Rabs (V (D.sum M (map f xs))) <= pow2 (20 + (A + u))).
  { intros f u A HA U H.
    destruct (sum_val M u (map f xs) O) as (Ff & Vf); [exact U | | |].
    - apply Forall_map, Forall_forall. intros x I. now apply H.
    - apply (fits_count 20 A u); [exact HA | now rewrite !map_length|].
      rewrite map_map. apply Forall_map, Forall_forall. intros x I. split; now apply H.
    - rewrite Vf, map_map. split; [exact Ff|]. split; [reflexivity|].
      eapply Rle_trans; [apply (sum_le_count _ _ (pow2 (A + u)))|].
      + intros x I. now apply H.
      + rewrite (bpow_plus _ 20). apply Rmult_le_compat_r; [apply bpow_ge_0 | exact K]. }
  destruct (SumOf hi v 31%Z) as (FH & VH & BH);
    [lia | unfold v; lia | intros x I; apply (Sp x I) |].
  destruct (SumOf lo (v - 31)%Z 30%Z) as (FL & VL & BL);
    [lia | unfold v; lia | intros x I; apply (Sp x I) |].
  set (H := D.sum M (map hi xs)) in *. set (L := D.sum M (map lo xs)) in *.
  set (S := sum (map V xs)).
  assert (Err : Rabs (V H + V L - S) <= pow2 (-41) * S).
  { rewrite VH, VL. unfold S. rewrite <- sum_map_plus. unfold Rminus.
  rewrite <- sum_map_opp, <- sum_map_plus.
    eapply Rle_trans; [apply (sum_le_count _ _ (pow2 (v - 31)))|].
    - intros x I. apply (Sp x I).
    - apply Rle_trans with (pow2 20 * pow2 (v - 31)).
      + apply Rmult_le_compat_r; [apply bpow_ge_0 | exact K].
      + rewrite <- bpow_plus. replace (20 + (v - 31))%Z with (-41 + k)%Z by (unfold v; lia).
        rewrite bpow_plus. apply Rmult_le_compat_l; [apply bpow_ge_0|].
        apply Rle_trans with (V m); [apply Km|]. now apply sum_ge_each. }
  assert (S0 : 0 <= S).
  { pose proof (sum_ge_each xs m Pos Im). unfold S. lra. }
  destruct (add_val H L) as [Vt Ft]; [exact FH | exact FL | |].
  { eapply Rle_trans; [apply Rabs_triang|]. apply Rle_trans with (pow2 900 + pow2 900).
    - apply Rplus_le_compat; (eapply Rle_trans; [eassumption | apply up; unfold v; lia]).
    - replace (pow2 900 + pow2 900) with (pow2 901); [apply up; lia|].
      change 901%Z with (1 + 900)%Z. rewrite bpow_plus. simpl (bpow radix2 1). lra. }
  split; [exact Ft|]. split; [|now rewrite Vt, VH, VL]. rewrite Vt. apply Rabs_le_inv in Err.
  simpl (bpow radix2 (-41)) in Err.
  pose proof (rnd_plus_error (V H) (V L) (V_format H) (V_format L) ltac:(lra)) as E.
  apply Rabs_le_inv in E. simpl (bpow radix2 (-53)) in E. unfold approx.
  simpl (bpow radix2 (-33)). apply Rabs_le. lra.
Qed.

(** * Exact.grid *)
(* The grid as `total` alone gives it. *)
Definition grid_total (M : D.machine) (s : float) (xs : list float) : float :=
  (D.power_below (D.total M (map abs xs) * s) * 2)%float.

Theorem grid_total_val M bits scale xs : orderly M -> (29 <= bits <= 50)%Z -> fin scale ->
  V scale = Grids.scale bits ->
  Forall moderate xs -> (exists x, In x xs /\ V x <> 0) -> short xs ->
  exists u, V (grid_total M scale xs) = pow2 u /\
    pow2 u = 2 * power_below (target bits (total_real (map abs xs))) /\
      fin (grid_total M scale xs) /\ (-500 <= u <= 500)%Z /\
  (forall x, In x xs -> Rabs (V x) <= pow2 (51 + u)) /\
  forall rs, Forall2 (near u) rs (map V xs) -> sumabs rs <= pow2 (bits + u).
Proof.
  intros O Hb Fs Vs Mo (x0 & I0 & N0) K. unfold grid_total. set (ys := map abs xs).
  assert (Ya : map V ys = map Rabs (map V xs)).
  { unfold ys. rewrite !map_map. apply map_ext. intros x. apply abs_val. }
  assert (My : Forall moderate ys).
  { unfold ys. apply Forall_map. eapply Forall_impl; [|exact Mo]. intros x [Fx Bx].
    destruct (abs_val x) as [E Fa]. split; [now apply Fa|]. rewrite E, Rabs_Rabsolu.
    destruct Bx as [Z | Bx]; [left; rewrite Z; apply Rabs_R0 | now right]. }
  assert (Py : forall y, In y ys -> 0 <= V y).
  { intros y I. apply in_map_iff in I as (x & <- & _). destruct (abs_val x) as [-> _].
  apply Rabs_pos. }
  destruct (total_val M ys O My Py) as (Ft & At & Vtot).
  { exists (abs x0). split; [now apply in_map|]. destruct (abs_val x0) as [-> _].
  now apply Rabs_no_R0. }
  { unfold short, ys. now rewrite map_length. }
  rewrite Ya in At. fold (sumabs (map V xs)) in At. set (S := sumabs (map V xs)) in *.
  set (t := D.total M ys) in *.
  assert (Le : forall x, In x xs -> Rabs (V x) <= S).
  { intros x I. destruct (abs_val x) as [E _]. rewrite <- E.
    replace S with (sum (map V ys)) by (now rewrite Ya).
    apply sum_ge_each; [exact Py | now apply in_map]. }
  assert (S1 : pow2 (-400) <= S).
  { pose proof (proj1 (Forall_forall _ _) Mo x0 I0) as [_ [Z | [B1 _]]]; [easy|].
    eapply Rle_trans; [exact B1 | now apply Le]. }
  assert (S2 : S <= pow2 420).
  { unfold S, sumabs. rewrite <- (Rabs_pos_eq (sum _)).
    - rewrite !map_map. eapply Rle_trans; [apply (sum_le_count _ _ (pow2 400))|].
      + intros x I. rewrite Rabs_Rabsolu.
        pose proof (proj1 (Forall_forall _ _) Mo x I) as [_ [Z | [_ B2]]]; [|exact B2].
        rewrite Z, Rabs_R0. apply bpow_ge_0.
      + change 420%Z with (20 + 400)%Z. rewrite bpow_plus.
        apply Rmult_le_compat_r; [apply bpow_ge_0 | exact K].
    - fold (sumabs (map V xs)). apply sumabs_nonneg. }
  assert (C0 : pow2 (- bits) <= Grids.scale bits <= 2 * pow2 (- bits)).
  { unfold Grids.scale. pose proof (bpow_gt_0 radix2 (- bits)). simpl (bpow radix2 (-9)). lra. }
  assert (Low : pow2 (-1000) <= S * Grids.scale bits).
  { apply Rle_trans with (pow2 (-400) * pow2 (- bits)).
    - rewrite <- bpow_plus. apply up. lia.
    - pose proof (bpow_ge_0 radix2 (-400)). pose proof (bpow_ge_0 radix2 (- bits)).
      apply Rmult_le_compat; lra. }
  destruct (target_approx bits S (V t) At Low) as (Fg & Pg & Eg).
  set (T := target bits (V t)) in *.
  assert (Hi : S * Grids.scale bits <= pow2 430).
  { apply Rle_trans with (pow2 420 * pow2 1).
    - pose proof (bpow_ge_0 radix2 (- bits)). apply Rmult_le_compat; try lra.
      + pose proof (bpow_ge_0 radix2 (-400)). lra.
      + apply Rle_trans with (2 * pow2 (- bits)); [lra|]. simpl (bpow radix2 1).
        assert (pow2 (- bits) <= pow2 0) by (apply up; lia). simpl (bpow radix2 0) in *. lra.
    - rewrite <- bpow_plus. apply up. lia. }
  apply Rabs_le_inv in Eg. simpl (bpow radix2 (-33)) in Eg.
  assert (P430 : 0 < pow2 430) by apply bpow_gt_0.
  assert (P431 : pow2 431 = 2 * pow2 430).
  { change 431%Z with (1 + 430)%Z. rewrite bpow_plus. simpl (bpow radix2 1). lra. }
  assert (Tb : T <= pow2 431) by lra.
  assert (Ab : Rabs (V t * Grids.scale bits) <= pow2 1000).
  { unfold approx in At. apply Rabs_le_inv in At. simpl (bpow radix2 (-33)) in At.
    assert (0 <= S) by apply sumabs_nonneg.
    rewrite Rabs_pos_eq by (apply Rmult_le_pos;
      [lra | pose proof (bpow_ge_0 radix2 (- bits)); lra]).
    apply Rle_trans with (2 * S * Grids.scale bits).
    - apply Rmult_le_compat_r; [pose proof (bpow_ge_0 radix2 (- bits)); lra | lra].
    - apply Rle_trans with (pow2 431); [lra | apply up; lia]. }
  destruct (mul_val t scale Ft Fs) as [Vg Fm]; [now rewrite Vs|].
  rewrite Vs in Vg. fold (target bits (V t)) in Vg. fold T in Vg.
  destruct (power_below_pow2 (t * scale) Fm) as (k & Vp & Fp & _ & Kb).
  { rewrite Vg. split; [exact Pg | eapply Rle_trans; [exact Tb | apply up; lia]]. }
  rewrite Vg in Kb.
  assert (Kr : (-461 <= k <= 431)%Z).
  { split; [apply Z.lt_succ_r, (lt_bpow radix2); unfold Z.succ | apply (le_bpow radix2); lra].
    apply Rle_lt_trans with T; [|apply Kb].
    assert (pow2 (-460) <= S * Grids.scale bits).
    { apply Rle_trans with (pow2 (-400) * pow2 (- bits)).
      - rewrite <- bpow_plus. apply up. lia.
      - pose proof (bpow_ge_0 radix2 (-400)). pose proof (bpow_ge_0 radix2 (- bits)).
        apply Rmult_le_compat; lra. }
    assert (E : pow2 (-460) = 2 * pow2 (-461)).
    { change (-460)%Z with (1 + -461)%Z. rewrite bpow_plus. simpl (bpow radix2 1). lra. }
    pose proof (bpow_gt_0 radix2 (-461)). lra. }
  assert (K1 : pow2 (k + 1) = pow2 k * 2) by (rewrite bpow_plus; simpl (bpow radix2 1); lra).
  assert (V2 : V 2 = 2) by (value; simpl; lra).
  destruct (mul_val (D.power_below (t * scale)) 2) as [Vr Fr]; [exact Fp | finite | |].
  { rewrite Vp, V2, <- K1, Rabs_pos_eq by apply bpow_ge_0. apply up. lia. }
  assert (E : power_below T = pow2 k).
  { rewrite <- Vp. symmetry. rewrite <- Vg. apply power_below_val; [exact Fm|].
    rewrite Vg. split; [pose proof (bpow_ge_0 radix2 (-1001)); lra|].
    eapply Rle_trans; [exact Tb | apply up; lia]. }
  exists (k + 1)%Z. split; [|split; [|split; [exact Fr|split; [lia|split]]]].
  - rewrite Vr, Vp, V2, <- K1. unfold rnd. apply round_generic; [apply valid_rnd_N|].
    apply generic_format_bpow. unfold FLT_exp. lia.
  - fold ys. rewrite <- Vtot. fold T. rewrite E, K1. ring.
  - intros x I. eapply Rle_trans; [now apply Le|].
    (* S 2^-bits <= S * scale, and (1 - 34/32 2^-33) of that is below 2^(k+1) *)
    assert (X : S * Grids.scale bits <= 2 * pow2 (k + 1)) by (pose proof (bpow_gt_0 radix2 (k + 1));
      lra).
    apply Rle_trans with (pow2 (1 + (k + 1) + bits)); [|apply up; lia].
    rewrite !(bpow_plus _ (1 + (k + 1))), (bpow_plus _ 1 (k + 1)). simpl (bpow radix2 1).
    assert (Inv : pow2 (- bits) * pow2 bits = 1).
    { rewrite <- bpow_plus. now replace (- bits + bits)%Z with 0%Z by lia. }
    replace S with (S * pow2 (- bits) * pow2 bits) by (rewrite Rmult_assoc, Inv; ring).
    apply Rmult_le_compat_r; [apply bpow_ge_0|].
    assert (0 <= S) by apply sumabs_nonneg.
    apply Rle_trans with (S * Grids.scale bits); [|exact X].
    apply Rmult_le_compat_l; [assumption | lra].
  - intros rs N. apply (grid_bound bits k (map V xs) rs (V t) (V t)); auto;
    [lia | now rewrite map_length |].
    unfold grid_power. fold T.
    rewrite E. now destruct (Rlt_dec _ _).
Qed.

Print Assumptions total_val.
Print Assumptions grid_total_val.
