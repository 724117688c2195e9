(* Distortion.v -- A2 (distortion), over the real numbers: how far an attention output moves when K
   and V are rounded.

   If the moves of the scores spread by 2 delta, and each value moves by eta at most, the output
   moves by at most 2 tanh(delta/2) * max |v - c| + eta, for any centre c; with c = 0, max |v|.  A
   shift of all scores changes nothing.  No smaller factor will do, whatever delta is.  T9 is no
   case of it: there scores move to -inf.  Rounding of the sums is not part of this. *)
From Coq Require Import Reals List Lra.
From Flocq Require Import Raux.
From Minikv Require Import Bounded.
Import ListNotations.
Open Scope R_scope.

(* The weights before and after; of each key, the scores before and after. *)
Definition before (l : list (R * R)) : list R :=
  map (fun p => exp (fst p) / sum (map (fun q => exp (fst q)) l)) l.
Definition after (l : list (R * R)) : list R :=
  map (fun p => exp (snd p) / sum (map (fun q => exp (snd q)) l)) l.

(* tanh(x/2), as what the proof makes of it. *)
Definition factor (delta : R) : R := (exp delta - 1) / (exp delta + 1).

Lemma sum_pos {A} (f : A -> R) l : l <> [] -> (forall x, 0 < f x) -> 0 < sum (map f l).
Proof.
  intros N P. destruct l as [|x l]; [easy|]. clear N. revert x.
  induction l as [|y l IH]; intros x; simpl in *; [pose proof (P x); lra|].
  pose proof (IH y). pose proof (P x). lra.
Qed.

(* For weights w and factors f within [h, h t^2] whose mean is z: the weights w f / z differ from w
   by 2 (t - 1) / (t + 1) in all. Each |f/z - 1| lies under the chord of a convex function. *)
Lemma chord h H z f : 0 < h -> h <= z <= H -> h < H -> h <= f <= H ->
  Rabs (1 - f / z) <= ((H - f) * (1 - h / z) + (f - h) * (H / z - 1)) / (H - h).
Proof.
  intros P Z W F. apply Rmult_le_reg_r with (z * (H - h)); [apply Rmult_lt_0_compat; lra|].
  replace (((H - f) * (1 - h / z) + (f - h) * (H / z - 1)) / (H - h) * (z * (H - h)))
    with ((H - f) * (z - h) + (f - h) * (H - z)) by (field; lra).
  rewrite <- (Rabs_pos_eq (z * (H - h))) at 1 by (apply Rmult_le_pos; lra).
  rewrite <- Rabs_mult.
  replace ((1 - f / z) * (z * (H - h))) with ((z - f) * (H - h)) by (field; lra).
  assert (0 <= (H - f) * (z - h)) by (apply Rmult_le_pos; lra).
  assert (0 <= (f - h) * (H - z)) by (apply Rmult_le_pos; lra).
  replace ((z - f) * (H - h)) with ((H - f) * (z - h) - (f - h) * (H - z)) by ring.
  apply Rabs_le. lra.
Qed.

Lemma root_gap h t z : 0 < h -> 1 < t -> h <= z <= h * (t * t) ->
  2 * (h * (t * t) - z) * (z - h) / (z * (h * (t * t) - h)) <= 2 * ((t - 1) / (t + 1)).
Proof.
  intros P T Z. assert (0 < z) by lra. assert (T2 : 1 < t * t) by nra.
  pose proof (Rmult_lt_compat_l h _ _ P T2).
  apply Rmult_le_reg_r with (z * (h * (t * t) - h)); [apply Rmult_lt_0_compat; lra|].
  replace (2 * (h * (t * t) - z) * (z - h) / (z * (h * (t * t) - h)) * (z * (h * (t * t) - h)))
    with (2 * ((h * (t * t) - z) * (z - h))) by (field; split; lra).
  replace (2 * ((t - 1) / (t + 1)) * (z * (h * (t * t) - h))) with (2 * (z * h * (t - 1) * (t - 1)))
    by (field; lra).
  (* the difference is a square: (z - h t)^2 *)
  pose proof (Rle_0_sqr (z - h * t)) as S. unfold Rsqr in S. nra.
Qed.

(* The weights after are the weights before times factors, over their mean. *)
Definition gain (p : R * R) : R := exp (snd p - fst p).
Definition mean_gain (l : list (R * R)) : R :=
  sum (map (fun q => exp (snd q)) l) / sum (map (fun q => exp (fst q)) l).

Lemma moved_weight l p : l <> [] ->
  exp (fst p) / sum (map (fun q => exp (fst q)) l) * (gain p / mean_gain l)
  = exp (snd p) / sum (map (fun q => exp (snd q)) l).
Proof.
  intros N. unfold gain, mean_gain.
  pose proof (sum_pos (fun q : R * R => exp (fst q)) l N (fun q => exp_pos _)).
  pose proof (sum_pos (fun q : R * R => exp (snd q)) l N (fun q => exp_pos _)).
  replace (exp (snd p)) with (exp (fst p) * exp (snd p - fst p))
    by (rewrite <- exp_plus; f_equal; ring).
  field. split; lra.
Qed.

(* All moves within a spread of 2 delta. *)
Definition within (a delta : R) (l : list (R * R)) : Prop :=
  Forall (fun p => a <= snd p - fst p <= a + 2 * delta) l.

Lemma gain_within a delta p : a <= snd p - fst p <= a + 2 * delta ->
  exp a <= gain p <= exp a * (exp delta * exp delta).
Proof.
  assert (M : forall x y, x <= y -> exp x <= exp y).
  { intros x y [H | ->]; [left; now apply exp_increasing | right; reflexivity]. }
  intros [H1 H2]. unfold gain. split; [now apply M|]. rewrite <- !exp_plus. apply M. lra.
Qed.

Lemma mean_within a delta l : l <> [] -> within a delta l ->
  exp a <= mean_gain l <= exp a * (exp delta * exp delta).
Proof.
  intros N W. unfold mean_gain. set (H := exp a * (exp delta * exp delta)).
  pose proof (sum_pos (fun q : R * R => exp (fst q)) l N (fun q => exp_pos _)) as P.
  assert (B : exp a * sum (map (fun q => exp (fst q)) l) <= sum (map (fun q => exp (snd q)) l)
    <= H * sum (map (fun q => exp (fst q)) l)).
  { clear N P. unfold sum. induction W as [|p l Hp _ IH]; simpl; [lra|].
    destruct (gain_within a delta p Hp) as [G1 G2]. fold H in G2. pose proof (exp_pos (fst p)) as E.
    assert (X : exp (snd p) = exp (fst p) * gain p)
      by (unfold gain; rewrite <- exp_plus; f_equal; ring).
    rewrite X. split; nra. }
  split; apply Rmult_le_reg_r with (sum (map (fun q => exp (fst q)) l)); try exact P;
    unfold Rdiv; rewrite (Rmult_assoc (sum (map (fun q => exp (snd q)) l))), Rinv_l by lra; lra.
Qed.

(** * A2: the weights move by 2 tanh(delta/2) in all *)
Theorem moved_weights a delta l : 0 <= delta -> l <> [] -> within a delta l ->
  distance (before l) (after l) <= 2 * factor delta.
Proof.
  intros D N W. unfold factor. set (t := exp delta). set (h := exp a). set (z := mean_gain l).
  assert (Ph : 0 < h) by apply exp_pos. assert (T : 1 <= t).
  { unfold t. rewrite <- exp_0. destruct D as [D | <-]; [left; now apply exp_increasing | lra]. }
  destruct (mean_within a delta l N W) as [Z1 Z2]. fold h t z in Z1, Z2.
  pose proof (sum_pos (fun q : R * R => exp (fst q)) l N (fun q => exp_pos _)) as P.
  set (S := sum (map (fun q => exp (fst q)) l)) in *.
  (* any line above |1 - gain/z| on the interval bounds the distance by its value at the mean *)
  assert (Line : forall u v, (forall f, h <= f <= h * (t * t) -> Rabs (1 - f / z) <= u + v * f) ->
    distance (before l) (after l) <= u + v * z).
  { intros u v L.
    assert (G : forall m, within a delta m ->
      distance (map (fun p => exp (fst p) / S) m)
               (map (fun p => exp (fst p) / S * (gain p / z)) m)
      <= u * (sum (map (fun q => exp (fst q)) m) / S)
         + v * (sum (map (fun q => exp (snd q)) m) / S)).
    { unfold sum. induction 1 as [|p m Hp _ IH]; simpl; [unfold Rdiv; lra|].
      pose proof (L (gain p) (gain_within a delta p Hp)) as B.
      pose proof (exp_pos (fst p)) as E.
      assert (Q : 0 < exp (fst p) / S) by (apply Rdiv_lt_0_compat; lra).
      replace (exp (fst p) / S - exp (fst p) / S * (gain p / z))
        with (exp (fst p) / S * (1 - gain p / z)) by ring.
      rewrite Rabs_mult, (Rabs_pos_eq (exp (fst p) / S)) by lra.
      assert (X : exp (snd p) = exp (fst p) * gain p)
        by (unfold gain; rewrite <- exp_plus; f_equal; ring).
      apply Rmult_le_compat_l with (r := exp (fst p) / S) in B; [|lra].
      rewrite X.
      replace (u * ((exp (fst p) + fold_right Rplus 0 (map (fun q => exp (fst q)) m)) / S)
        + v * ((exp (fst p) * gain p + fold_right Rplus 0 (map (fun q => exp (snd q)) m)) / S))
        with (exp (fst p) / S * (u + v * gain p)
          + (u * (fold_right Rplus 0 (map (fun q => exp (fst q)) m) / S)
             + v * (fold_right Rplus 0 (map (fun q => exp (snd q)) m) / S))) by (field; lra).
      lra. }
    specialize (G l W).
    replace (map (fun p => exp (fst p) / S * (gain p / z)) l) with (after l) in G.
    2: { unfold after. apply map_ext. intros p. symmetry. now apply moved_weight. }
    change (map (fun p : R * R => exp (fst p) / S) l) with (before l) in G.
    eapply Rle_trans; [exact G|]. fold S. unfold z, mean_gain. fold S.
    replace (S / S) with 1 by (field; lra). lra. }
  destruct T as [T | T].
  - assert (T2 : 1 < t * t) by nra. pose proof (Rmult_lt_compat_l h _ _ Ph T2) as W'.
    rewrite Rmult_1_r in W'.
    eapply Rle_trans; [apply (Line
      (((h * (t * t)) * (1 - h / z) - h * (h * (t * t) / z - 1)) / (h * (t * t) - h))
      ((h * (t * t) / z - 1 - (1 - h / z)) / (h * (t * t) - h)))|].
    + intros f F. eapply Rle_trans; [apply (chord h (h * (t * t)) z f); auto|].
      right. field. split; lra.
    + eapply Rle_trans; [|apply (root_gap h t z); auto]. right. field. split; lra.
  - rewrite <- T in *. eapply Rle_trans; [apply (Line 0 0)|].
    + intros f F. replace f with z by lra. replace (1 - z / z) with 0 by (field; lra).
      rewrite Rabs_R0. lra.
    + unfold Rdiv. lra.
Qed.

(** * The factor *)
Lemma factor_tanh delta : factor delta = tanh (delta / 2).
Proof.
  unfold factor, tanh, sinh, cosh. pose proof (exp_pos (delta / 2)) as P.
  rewrite exp_Ropp. replace delta with (delta / 2 + delta / 2) at 1 2 by field. rewrite exp_plus.
  field. repeat split; nra.
Qed.
(* So it is below the constant that is easier to find. *)
Lemma factor_naive delta : 0 <= delta -> 2 * factor delta <= exp (2 * delta) - 1.
Proof.
  intros D. unfold factor. assert (T : 1 <= exp delta).
  { rewrite <- exp_0. destruct D as [D | <-]; [left; now apply exp_increasing | lra]. }
  replace (2 * delta) with (delta + delta) by ring. rewrite exp_plus. set (t := exp delta) in *.
  apply Rmult_le_reg_r with (t + 1); [lra|].
  replace (2 * ((t - 1) / (t + 1)) * (t + 1)) with (2 * (t - 1)) by (field; lra). nra.
Qed.
(* And below delta itself. *)
Lemma factor_linear delta : 0 <= delta -> 2 * factor delta <= delta.
Proof.
  intros [D | <-]; [|unfold factor; rewrite exp_0; lra].
  (* (2 + x) - (2 - x) e^x has the derivative 1 - (1 - x) e^x >= 0 *)
  assert (G : 0 <= (2 + delta) - (2 - delta) * exp delta).
  { destruct (MVT_cor2 (fun x => (2 + x) - (2 - x) * exp x) (fun x => 1 - (1 - x) * exp x)
      0 delta D)
      as (c & E & C).
    { intros c _.
      replace (1 - (1 - c) * exp c)
        with ((0 + 1) - ((0 - 1) * exp c + (2 - c) * exp c)) by ring.
      apply derivable_pt_lim_minus.
      - apply derivable_pt_lim_plus; [apply derivable_pt_lim_const | apply derivable_pt_lim_id].
      - apply (derivable_pt_lim_mult (fun x => 2 - x) exp); [|apply derivable_pt_lim_exp].
        apply (derivable_pt_lim_minus (fun _ => 2) id);
          [apply derivable_pt_lim_const | apply derivable_pt_lim_id]. }
    rewrite exp_0 in E. assert (Q : (1 - c) * exp c <= 1).
    { pose proof (exp_pos c) as P. pose proof (exp_ineq1_le (- c)) as I. rewrite exp_Ropp in I.
      apply Rmult_le_compat_r with (r := exp c) in I; [|lra]. rewrite Rinv_l in I by lra. lra. }
    assert (0 <= (1 - (1 - c) * exp c) * (delta - 0)) by (apply Rmult_le_pos; lra). lra. }
  unfold factor. pose proof (exp_pos delta). apply Rmult_le_reg_r with (exp delta + 1); [lra|].
  replace (2 * ((exp delta - 1) / (exp delta + 1)) * (exp delta + 1)) with (2 * (exp delta - 1))
    by (field; lra). lra.
Qed.

(** * A2: hence so does the output *)
Section Vectors.
Variable norm : vector -> R.
Hypothesis norm_ext : forall x y, (forall j, x j = y j) -> norm x = norm y.
Hypothesis norm_zero : norm (fun _ => 0) = 0.
Hypothesis norm_step : forall c v r, norm (fun j => c * v j + r j) <= Rabs c * norm v + norm r.

(* A mean of vectors of norm at most eta has norm at most eta. *)
Lemma mean_norm eta ws : forall es, length es = length ws -> Forall (fun w => 0 <= w) ws ->
  Forall (fun e => norm e <= eta) es -> norm (attend ws es) <= sum ws * eta.
Proof.
  unfold sum. induction ws as [|w ws IH]; intros [|e es] N W E; try easy; simpl in *;
    [rewrite norm_zero; lra|].
  inversion W; inversion E; subst.
  eapply Rle_trans; [apply norm_step|]. rewrite Rabs_pos_eq by auto.
  specialize (IH es ltac:(congruence) H2 H6).
  pose proof (Rmult_le_compat_l _ _ _ H1 H5). lra.
Qed.

Fixpoint minus (vs vs' : list vector) : list vector :=
  match vs, vs' with v :: vs, v' :: vs' => (fun j => v j - v' j) :: minus vs vs' | _, _ => [] end.
Definition centred (c : vector) (vs : list vector) : list vector := map (fun v j => v j - c j) vs.

Lemma attend_centred c ws : forall vs j, length vs = length ws ->
  attend ws vs j = attend ws (centred c vs) j + sum ws * c j.
Proof.
  unfold sum. induction ws as [|w ws IH]; intros [|v vs] j N; try easy; simpl in *; [ring|].
  rewrite (IH vs) by congruence. ring.
Qed.
Lemma attend_minus ws : forall vs vs' j, length vs = length ws -> length vs' = length ws ->
  attend ws vs j - attend ws vs' j = attend ws (minus vs vs') j.
Proof.
  induction ws as [|w ws IH]; intros [|v vs] [|v' vs'] j N N'; try easy; simpl in *; [ring|].
  rewrite <- IH by congruence. ring.
Qed.
Lemma minus_length vs : forall vs', length vs' = length vs -> length (minus vs vs') = length vs.
Proof.
  induction vs as [|v vs IH]; intros [|v' vs'] N; simpl in *; try easy. rewrite IH; congruence.
Qed.

Lemma weights_sum (f : R * R -> R) l : l <> [] ->
  sum (map (fun p => exp (f p) / sum (map (fun q => exp (f q)) l)) l) = 1
  /\ Forall (fun w => 0 <= w) (map (fun p => exp (f p) / sum (map (fun q => exp (f q)) l)) l).
Proof.
  intros N. pose proof (sum_pos (fun q => exp (f q)) l N (fun q => exp_pos _)) as P.
  set (S := sum (map (fun q => exp (f q)) l)) in *. split.
  - replace 1 with (sum (map (fun q => exp (f q)) l) / S) by (unfold S in *; field; lra).
    clearbody S. clear N. unfold sum. induction l as [|p l IH]; simpl; [field; lra|].
    rewrite IH. field. lra.
  - apply Forall_map, Forall_forall. intros p _. pose proof (exp_pos (f p)).
    apply Rlt_le, Rdiv_lt_0_compat; lra.
Qed.

Theorem distortion c a delta eta M l vs vs' : 0 <= delta -> l <> [] -> within a delta l ->
  length vs = length l -> length vs' = length l ->
  Forall (fun v => norm (fun j => v j - c j) <= M) vs ->
  Forall (fun e => norm e <= eta) (minus vs vs') ->
  norm (fun j => attend (before l) vs j - attend (after l) vs' j) <= 2 * factor delta * M + eta.
Proof.
  intros D N W L L' C E.
  assert (LB : length (before l) = length l) by apply map_length.
  assert (LA : length (after l) = length l) by apply map_length.
  destruct (weights_sum fst l N) as [SB _], (weights_sum snd l N) as [SA PA].
  fold (before l) in SB. fold (after l) in SA, PA.
  assert (LC : length (centred c vs) = length l) by (unfold centred; rewrite map_length; exact L).
  rewrite (norm_ext _ (fun j =>
    1 * (attend (before l) (centred c vs) j - attend (after l) (centred c vs) j)
    + attend (after l) (minus vs vs') j)).
  2: { intros j. rewrite <- attend_minus by (rewrite LA; assumption).
       rewrite (attend_centred c (before l) vs), (attend_centred c (after l) vs)
         by (rewrite ?LA, ?LB; assumption).
       rewrite SB, SA. ring. }
  eapply Rle_trans; [apply norm_step|]. rewrite Rabs_R1, Rmult_1_l. apply Rplus_le_compat.
  - apply Rle_trans with (distance (before l) (after l) * M).
    + apply (attend_distance norm norm_ext norm_zero norm_step);
        [rewrite LA, LB; reflexivity | rewrite LB; exact LC |].
      unfold centred. apply Forall_map. exact C.
    + assert (0 <= M \/ vs = []) as [P | ->].
      { destruct vs as [|v vs]; [now right | left]. inversion C as [|? ? Hv _]; subst.
        (* a norm is not negative: 0 = norm 0 <= norm v + norm v *)
        set (x := fun j => v j - c j) in *. pose proof (norm_step (-1) x x) as S.
        rewrite (norm_ext _ (fun _ => 0)) in S by (intros; ring). rewrite norm_zero in S.
        rewrite Rabs_left in S by lra.
        lra. }
      * apply Rmult_le_compat_r; [exact P | now apply (moved_weights a)].
      * destruct l; easy.
  - eapply Rle_trans; [apply (mean_norm eta)|].
    { rewrite minus_length; [rewrite LA; exact L | etransitivity; [exact L' | symmetry; exact L]]. }
    { exact PA. } { exact E. }
    rewrite SA. lra.
Qed.

(* As it is often put: |y - x| <= delta, max |v|. *)
Corollary distortion_plain delta eta M l vs vs' : l <> [] ->
  Forall (fun p => Rabs (snd p - fst p) <= delta) l ->
  length vs = length l -> length vs' = length l -> Forall (fun v => norm v <= M) vs ->
  Forall (fun e => norm e <= eta) (minus vs vs') ->
  norm (fun j => attend (before l) vs j - attend (after l) vs' j) <= 2 * factor delta * M + eta.
Proof.
  intros N W L L' C E. assert (D : 0 <= delta).
  { destruct l as [|p l]; [easy|]. inversion W. pose proof (Rabs_pos (snd p - fst p)). lra. }
  apply (distortion (fun _ => 0) (- delta) delta); auto.
  - eapply Forall_impl; [|exact W]. intros p H. cbv beta in H. apply Rabs_le_inv in H. lra.
  - eapply Forall_impl; [|exact C]. intros v H. cbv beta in H.
    rewrite (norm_ext _ v) by (intros; ring). exact H.
Qed.

(* Values alone: quantised V. *)
Corollary distortion_values eta l vs vs' M : l <> [] -> Forall (fun p => snd p = fst p) l ->
  length vs = length l -> length vs' = length l -> Forall (fun v => norm v <= M) vs ->
  Forall (fun e => norm e <= eta) (minus vs vs') ->
  norm (fun j => attend (before l) vs j - attend (after l) vs' j) <= eta.
Proof.
  intros N W L L' C E. replace eta with (2 * factor 0 * M + eta)
    by (unfold factor; rewrite exp_0; unfold Rdiv; ring).
  apply distortion_plain; auto. eapply Forall_impl; [|exact W]. intros p ->.
  rewrite Rminus_diag_eq, Rabs_R0 by reflexivity. lra.
Qed.
End Vectors.

(** * Rounded K: how far a score moves, where each number of a key moves by half a step at most *)
Definition score (q k : list R) : R := sum (map (fun p => fst p * snd p) (combine q k)).
Definition l1 (q : list R) : R := sum (map Rabs q).
Theorem score_moves step q : forall k k', length k = length q -> length k' = length q ->
  Forall (fun p => Rabs (snd p - fst p) <= step / 2) (combine k k') ->
  Rabs (score q k' - score q k) <= l1 q * (step / 2).
Proof.
  unfold score, l1, sum.
  induction q as [|x q IH]; intros [|y k] [|y' k'] N N' F; try easy; simpl in *.
  - rewrite Rminus_0_r, Rabs_R0. lra.
  - inversion F as [|? ? Hy F']; subst. simpl in Hy.
    specialize (IH k k' ltac:(congruence) ltac:(congruence) F').
    match goal with |- Rabs (?a + ?b - (?c + ?d)) <= _ => replace (a + b - (c + d))
      with (x * (y' - y) + (b - d)) by ring end.
    eapply Rle_trans; [apply Rabs_triang|]. rewrite Rabs_mult.
    pose proof (Rmult_le_compat_l _ _ _ (Rabs_pos x) Hy). lra.
Qed.

(** * A2: the factor is attained, for every delta
   Two keys of opposite values, the first of weight 1/(1 + e^delta): its score rises by delta, the
   other's falls. *)
Theorem factor_is_attained delta :
  let l := [(0, delta); (delta, 0)] in let vs := [(fun _ => -1); (fun _ => 1)] in
  Forall (fun p => Rabs (snd p - fst p) <= Rabs delta) l /\
  forall j, attend (before l) vs j - attend (after l) vs j = 2 * factor delta * 1.
Proof.
  intros l vs. split.
  - repeat constructor; simpl; [rewrite Rminus_0_r | rewrite Rminus_0_l, Rabs_Ropp]; lra.
  - intros j. unfold before, after, factor, l, vs, sum. simpl. rewrite exp_0.
    pose proof (exp_pos delta). field. lra.
Qed.
(* And so is eta. *)
Theorem eta_is_attained eta :
  let l := [(0, 0)] in forall j : nat,
  attend (before l) [(fun _ => eta)] j - attend (after l) [(fun _ => 0)] j = eta.
Proof. intros l j. unfold before, after, l, sum. simpl. rewrite exp_0. field. Qed.

(* A shift of all scores, however large, is not a move. *)
Corollary shifts_are_free a l : l <> [] -> Forall (fun p => snd p - fst p = a) l ->
  distance (before l) (after l) = 0.
Proof.
  intros N S. apply Rle_antisym.
  - replace 0 with (2 * factor 0) by (unfold factor; rewrite exp_0; unfold Rdiv; ring).
    apply (moved_weights a 0); [lra | exact N |]. eapply Forall_impl; [|exact S]. intros p ->. lra.
  - generalize (before l) (after l). induction l0 as [|w ws IH]; intros [|w' ws']; simpl; try lra.
    pose proof (Rabs_pos (w - w')). pose proof (IH ws'). lra.
Qed.

Print Assumptions moved_weights.
Print Assumptions factor_tanh.
Print Assumptions factor_naive.
Print Assumptions factor_linear.
Print Assumptions distortion.
Print Assumptions distortion_plain.
Print Assumptions distortion_values.
Print Assumptions score_moves.
Print Assumptions factor_is_attained.
Print Assumptions eta_is_attained.
Print Assumptions shifts_are_free.
