(* Checks.v -- what attention's checks ask, number by number.  A scaled query is 0 or far from 0 and
   infinity; so is a softmax weight times its value's power of two, by the ranges of float32 and of
   the softmax's grid.  Softmax.v composes them. *)
From Coq Require Import ZArith Reals List Permutation Lia Lra Bool Floats.
From Flocq Require Import Core BinarySingleNaN PrimFloat.
From Minikv Require Import Exactness Grids Binary64 Values Machine Total GridOrder Narrow Rows
  Linear Attend Settle Hidden Calm NoRaise Range Norm Gate.
From Minikv Require Decoder.
Import ListNotations.
Open Scope R_scope.
#[local] Existing Instances Binary64.Hprec Binary64.Hmax.
#[local] Instance valid_exp : Valid_exp fexp64 := FLT_exp_valid (-1074) 53.
#[local] Opaque one.

(* What is asked of a configuration, beside `good`. *)
Record calm_conf (c : D.config) : Prop := {
  calm_good : good c;
  calm_scalar : fin (D.query_pre_attn_scalar c) /\
    pow2 (-100) <= V (D.query_pre_attn_scalar c) <= pow2 100;
  calm_context : V (D.context c) <= pow2 20;
  calm_table : good_table (D.exp_table c) = true; calm_sound : sound_table (D.exp_table c) = true }.

Lemma abs_near r e : Rabs r <= pow2 e -> (-1074 <= e)%Z -> Rabs (rnd r) <= pow2 e.
Proof. intros H E. now apply rnd_le. Qed.
Lemma abs_far r e : pow2 e <= Rabs r -> (-1074 <= e)%Z -> pow2 e <= Rabs (rnd r).
Proof.
  intros H E. apply abs_round_ge_generic;
    [exact _ | apply valid_rnd_N | now apply pow_format | exact H].
Qed.
Lemma sum_le_sumabs_map {A} (f g : A -> R) l : (forall x, In x l -> Rabs (f x) <= g x) ->
  Rabs (sum (map f l)) <= sum (map g l).
Proof.
  induction l as [|x l IH]; intros H; cbn [map sum fold_right]; [rewrite Rabs_R0; simpl; lra|].
  eapply Rle_trans; [apply Rabs_triang|]. pose proof (H x (or_introl eq_refl)).
  pose proof (IH (fun y I => H y (or_intror I))). unfold sum in *. lra.
Qed.

(* A query, scaled: the root of a number far from 0 and infinity is, too. *)
Lemma scaled_query c q : calm_conf c -> Forall single q ->
  let k := (1 / sqrt (D.query_pre_attn_scalar c))%float in
  Forall (fun x => D.wide x = true /\ fin x /\
    Rabs (V x) <= pow2 178) (map (fun x => x * k)%float q).
Proof.
  intros [_ [Fs Bs] _ _ _] Q k. set (s := D.query_pre_attn_scalar c) in *.
  pose proof (bpow_gt_0 radix2 (-100)) as P. destruct (sqrt_val s Fs) as [Vr Fr]; [lra|].
  assert (Br : pow2 (-50) <= V (sqrt s) <= pow2 50).
  { rewrite Vr. split.
    - apply rnd_ge_pow; [lia|]. rewrite <- sqrt_pow. apply sqrt_le_1_alt, Bs.
    - rewrite <- (rnd_fix (pow2 50)) by (apply pow_format; lia). apply rnd_mono.
      rewrite <- sqrt_pow. apply sqrt_le_1_alt, Bs. }
  pose proof (bpow_gt_0 radix2 (-50)) as P50.
  assert (I : pow2 (-50) <= 1 / V (sqrt s) <= pow2 50).
  { unfold Rdiv. rewrite Rmult_1_l. split.
    - change (-50)%Z with (- (50))%Z. rewrite bpow_opp. apply Rinv_le; lra.
    - replace (pow2 50) with (/ pow2 (-50)) by (rewrite <- bpow_opp; reflexivity).
      apply Rinv_le; lra. }
  destruct (div_val 1 (sqrt s)) as [Vk Fk]; [finite | exact Fr | lra | |].
  { rewrite V_1, Rabs_pos_eq by lra. eapply Rle_trans; [apply I | apply up; lia]. }
  fold k in Vk, Fk. rewrite V_1 in Vk.
  assert (Bk : pow2 (-50) <= V k <= pow2 50).
  { rewrite Vk. split; [apply rnd_ge_pow; [lia | apply I]|].
    rewrite <- (rnd_fix (pow2 50)) by (apply pow_format; lia). apply rnd_mono. apply I. }
  apply Forall_map. eapply Forall_impl; [|exact Q]. intros x S. cbv beta.
  pose proof (proj2 (proj2 S)) as Lt. destruct (tame_val x (single_tame x S)) as [Fx Bx].
  assert (U : Rabs (V x * V k) <= pow2 178).
  { rewrite Rabs_mult, (Rabs_pos_eq (V k)) by lra. change 178%Z with (128 + 50)%Z.
    rewrite bpow_plus. apply Rmult_le_compat; try apply Rabs_pos; lra. }
  destruct (mul_val x k Fx Fk) as [Vm Fm]; [small|].
  assert (B : Rabs (V (x * k)%float) <= pow2 178) by (rewrite Vm; apply abs_near; [exact U | lia]).
  split; [|now split]. apply wide_intro; [exact Fm|]. destruct Bx as [Z | [L _]].
  - left. rewrite Vm, Z, Rmult_0_l. apply rnd_0.
  - right. split; [|small]. apply Rle_trans with (pow2 (-149 + -50)); [apply up; lia|].
    rewrite Vm. apply abs_far; [|lia]. rewrite Rabs_mult, (Rabs_pos_eq (V k)) by lra.
    rewrite bpow_plus. apply Rmult_le_compat; try apply bpow_ge_0; lra.
Qed.

(* A softmax weight, times a power of two of float32's range. *)
Lemma weight_wide e den v n : fin e -> on_grid (- n) (V e) -> 0 <= V e <= 1 -> (1 <= n <= 51)%Z ->
  fin den -> 1 <= V den <= pow2 20 -> D.settled v = true ->
  let p := (e / den * power_of v)%float in
  D.wide p = true /\ fin p /\ 0 <= V p <= pow2 (exponent v).
Proof.
  intros Fe [k Hk] Be Hn Fd Bd S p. destruct (settled_value v S) as (Vv & Fv & Rv & _).
  set (j := exponent v) in *. pose proof (bpow_gt_0 radix2 j) as Pj.
  assert (I : pow2 (-20) <= / V den <= 1).
  { split.
    - change (-20)%Z with (- (20))%Z. rewrite bpow_opp. apply Rinv_le; lra.
    - rewrite <- Rinv_1. apply Rinv_le; lra. }
  pose proof (bpow_gt_0 radix2 (-20)) as P20.
  assert (Q : 0 <= V e / V den <= 1) by (unfold Rdiv; split; [apply Rmult_le_pos; lra | nra]).
  destruct (div_val e den Fe Fd) as [Vq Fq]; [lra | |].
  { rewrite Rabs_pos_eq by lra. apply Rle_trans with (pow2 0); [simpl; lra | apply up; lia]. }
  assert (B : 0 <= V (e / den)%float <= 1).
  { rewrite Vq. split; [rewrite <- rnd_0; apply rnd_mono; lra|].
    rewrite <- (rnd_fix 1); [apply rnd_mono; lra|]. apply (pow_format 0). lia. }
  assert (U : 0 <= V (e / den)%float * pow2 j <= pow2 j) by nra.
  destruct (mul_val (e / den) (power_of v) Fq Fv) as [Vp Fp].
  { rewrite Vv, Rabs_pos_eq by lra. apply Rle_trans with (pow2 j); [lra | apply up; lia]. }
  fold p in Vp, Fp. rewrite Vv in Vp.
  assert (Bp : 0 <= V p <= pow2 j).
  { rewrite Vp. split; [rewrite <- rnd_0; apply rnd_mono; lra|].
    apply Rle_trans with (rnd (pow2 j)); [apply rnd_mono; lra|].
    rewrite rnd_fix by (apply pow_format; lia). lra. }
  split; [|now split]. apply wide_intro; [exact Fp|].
  destruct (Z.eq_dec k 0) as [-> | Nk].
  - left. assert (Z : V e = 0) by (rewrite Hk; ring).
    rewrite Vp, Vq, Z. unfold Rdiv. now rewrite Rmult_0_l, rnd_0, Rmult_0_l, rnd_0.
  - right. rewrite Rabs_pos_eq by lra.
    split; [|apply Rle_trans with (pow2 j); [lra | apply up; lia]].
    assert (L : pow2 (- n) <= V e).
    { rewrite Hk in Be |- *. pose proof (bpow_gt_0 radix2 (- n)) as Pn.
      assert (K : (0 < k)%Z) by (apply lt_IZR; destruct (Z_le_gt_dec k 0) as [G | G];
        [apply IZR_le in G; assert (IZR k <> 0) by (now apply not_0_IZR); nra | apply IZR_lt; lia]).
      rewrite <- (Rmult_1_l (pow2 (- n))) at 1. apply Rmult_le_compat_r; [lra|]. apply IZR_le.
      lia. }
    assert (L1 : pow2 (- n + -20) <= V (e / den)%float).
    { rewrite Vq. apply rnd_ge_pow; [lia|]. rewrite bpow_plus. unfold Rdiv.
      apply Rmult_le_compat; try apply bpow_ge_0; lra. }
    apply Rle_trans with (pow2 (- n + -20 + j)); [apply up; lia|].
    rewrite Vp. apply rnd_ge_pow; [lia|]. rewrite bpow_plus. apply Rmult_le_compat_r; lra.
Qed.
Lemma exponent_le v b : D.settled v = true -> (-149 <= b)%Z -> Forall (at_most (pow2 b)) v ->
  (exponent v <= b)%Z.
Proof.
  intros S Hb Bv. destruct (settled_value v S) as (Vv & Fv & Rv & _).
  destruct (Z_le_gt_dec (exponent v) b) as [L | L]; [exact L|]. exfalso.
  assert (E : pow2 (exponent v) <= pow2 b); [|apply (le_bpow radix2) in E; lia].
  rewrite <- Vv. unfold power_of.
  assert (V149 : V 0x1p-149 = pow2 (-149)) by (value; simpl; lra).
  assert (Low : V (D.power_below 0x1p-149) <= pow2 b).
  { destruct (power_below_pow2 0x1p-149) as (k & -> & _ & _ & K); [finite | |].
    - rewrite V149. split; apply up; lia.
    - rewrite V149 in K. apply Rle_trans with (pow2 (-149)); [lra | now apply up]. }
  destruct v as [|x0 v0] eqn:Ev; 
    [change (D.clip 0x1p-149 0x1.fffffep127 (D.top [])) with 0x1p-149%float; exact Low|].
  rewrite <- Ev in *. set (t := D.top v).
  assert (Fa : Forall fin (map abs v)).
  { apply Forall_map. eapply Forall_impl; [|exact (finite_row _ _ Bv)]. intros x. apply abs_val. }
  destruct (largest_val (map abs v)) as [Im _]; [now rewrite Ev | exact Fa|].
  fold (D.top v) in Im. fold t in Im. pose proof (proj1 (Forall_forall _ _) Fa t Im) as Ft.
  assert (Bt : 0 <= V t <= pow2 b /\ V t < pow2 128).
  { apply in_map_iff in Im as (a & Ea & Ia). rewrite <- Ea. destruct (abs_val a) as [-> _].
    destruct (proj1 (Forall_forall _ _) Bv a Ia) as [(_ & _ & Lt) Ba].
    split; [split; [apply Rabs_pos | exact Ba] | exact Lt]. }
  unfold D.clip. rewrite (ltb_val t), V149 by (auto; finite).
  destruct (Rlt_bool_spec (V t) (pow2 (-149))) as [Q | Q]; cbv zeta.
  - change (0x1.fffffep127 <? 0x1p-149)%float with false. exact Low.
  - rewrite ltb_val, V_max by (auto; finite).
    assert (Below : forall y, fin y -> pow2 (-149) <= V y -> V y <= pow2 b -> V y <= pow2 128 ->
      V (D.power_below y) <= pow2 b).
    { intros y Fy Ly Uy U8. destruct (power_below_pow2 y Fy) as (k & -> & _ & _ & K); [|lra].
      split; [eapply Rle_trans; [|exact Ly] | eapply Rle_trans; [exact U8|]]; apply up; lia. }
    destruct (Rlt_bool_spec (IZR (2^24 - 1) * pow2 104) (V t)) as [R | R];
      [|apply Below; auto; lra].
    assert (M0 : pow2 (-149) <= IZR (2^24 - 1) * pow2 104).
    { assert (pow2 (-149) <= pow2 104) by (apply up; lia). pose proof (bpow_gt_0 radix2 104).
      assert (1 <= IZR (2^24 - 1)) by (apply IZR_le; lia). nra. }
    apply Below; [finite | | |]; rewrite V_max; lra.
Qed.
