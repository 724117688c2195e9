(* Settle.v -- `settle` settles: K and V as they leave kv_from_residual pass the check of `attend`,
   if they are finite float32 numbers. *)
From Coq Require Import ZArith Reals List Permutation Lia Lra Bool Floats.
From Flocq Require Import Core BinarySingleNaN PrimFloat.
From Minikv Require Import Exactness Grids Binary64 Values Machine Total GridOrder Narrow Rows
  Linear Attend.
From Minikv Require Decoder.
Import ListNotations.
Open Scope R_scope.
#[local] Existing Instances Binary64.Hprec Binary64.Hmax.
#[local] Instance valid_exp : Valid_exp fexp64 := FLT_exp_valid (-1074) 53.
#[local] Instance prec24 : Prec_gt_0 24 := eq_refl.
#[local] Instance valid_exp32 : Valid_exp (FLT_exp (-149) 24) := FLT_exp_valid (-149) 24.

(* A finite float32. *)
Definition single (x : float) : Prop :=
  fin x /\ generic_format radix2 (FLT_exp (-149) 24) (V x) /\ Rabs (V x) < pow2 128.

Lemma on_grid_32 x k : single x -> Rabs (V x) < pow2 (k + 1) ->
  on_grid (Z.min (k - 23) (-149)) (V x) /\
  ((-149 <= k - 23)%Z -> pow2 k <= Rabs (V x) -> on_grid (k - 23) (V x)).
Proof.
  intros (_ & Fm & _) Lt. unfold generic_format in Fm.
  set (e := cexp radix2 (FLT_exp (-149) 24) (V x)) in *.
  set (n := Ztrunc (scaled_mantissa radix2 (FLT_exp (-149) 24) (V x))) in *.
  assert (En : V x = IZR n * pow2 e) by (rewrite Fm at 1; reflexivity). clear Fm.
  assert (He : (-149 <= e)%Z) by (unfold e, cexp, FLT_exp; lia). split.
  - exists (n * 2 ^ (e - Z.min (k - 23) (-149)))%Z.
  rewrite mult_IZR, Rmult_assoc, <- pow2_split by lia.
    rewrite En. do 2 f_equal. lia.
  - intros K Ge. exists n. rewrite En. do 2 f_equal. unfold e, cexp.
    rewrite (mag_unique radix2 (V x) (k + 1)); [unfold FLT_exp; lia|].
    replace (k + 1 - 1)%Z with k by lia. now split.
Qed.
Lemma grid_le u v x : (u <= v)%Z -> on_grid v x -> on_grid u x.
Proof.
  intros L [n ->]. exists (n * 2 ^ (v - u))%Z. rewrite mult_IZR, Rmult_assoc, <- pow2_split by lia.
  do 2 f_equal. lia.
Qed.
Lemma format_32 u k y : (-149 <= u)%Z -> (k + 1 <= 24 + u)%Z -> on_grid u y ->
  Rabs y < pow2 (k + 1) ->
  generic_format radix2 (FLT_exp (-149) 24) y.
Proof.
  intros U K [n ->] Lt. apply generic_format_FLT.
  exists (Float radix2 n u); simpl; [reflexivity | | exact U].
  apply lt_IZR. rewrite abs_IZR. apply Rmult_lt_reg_r with (pow2 u); [apply bpow_gt_0|].
  rewrite <- (Rabs_pos_eq (pow2 u)) at 1 by apply bpow_ge_0. rewrite <- Rabs_mult.
  eapply Rlt_le_trans; [exact Lt|]. rewrite <- (pow2_split 24) by lia. apply up. lia.
Qed.
Lemma single_tame x : single x -> D.tame x = true.
Proof.
  intros S. pose proof S as (Fx & Fm & Lt). unfold D.tame, D.within.
  destruct (Req_dec (V x) 0) as [Z | N].
  { rewrite eqb_val, Z, V_0 by (auto; finite). now rewrite Req_bool_true. }
  apply orb_true_iff. right. destruct (abs_val x) as [Va Fa]. specialize (Fa Fx).
  assert (V149 : V 0x1p-149 = pow2 (-149)) by (value; simpl; lra).
  rewrite !leb_val, Va, V149, V_max by (auto; finite). apply andb_true_iff.
  split; apply Rle_bool_true.
  - destruct (on_grid_32 x 127 S) as [[n Hn] _]; [exact Lt|].
  change (Z.min (127 - 23) (-149)) with (-149)%Z in Hn.
    rewrite Hn, Rabs_mult, (Rabs_pos_eq (pow2 _)), <- abs_IZR by apply bpow_ge_0.
    pose proof (bpow_gt_0 radix2 (-149)). assert (1 <= IZR (Z.abs n)); [apply IZR_le|].
    + assert (n <> 0%Z); [|lia]. intros ->. apply N. rewrite Hn. ring.
    + rewrite <- (Rmult_1_l (pow2 (-149))) at 1. apply Rmult_le_compat_r; lra.
  - destruct (Rle_or_lt (pow2 127) (Rabs (V x))) as [Ge | L].
    + destruct (on_grid_32 x 127 S) as [_ H]; [exact Lt|]. destruct (H ltac:(lia) Ge) as [n Hn].
      change (127 - 23)%Z with 104%Z in Hn. rewrite Hn, Rabs_mult, (Rabs_pos_eq (pow2 _)),
        <- abs_IZR in * by apply bpow_ge_0.
      change 128%Z with (24 + 104)%Z in Lt. rewrite pow2_split in Lt by lia.
      apply Rmult_lt_reg_r in Lt; [|apply bpow_gt_0]. apply lt_IZR in Lt.
      apply Rmult_le_compat_r; [apply bpow_ge_0|]. apply IZR_le. lia.
    + apply Rlt_le, (Rlt_le_trans _ _ _ L). change 127%Z with (23 + 104)%Z.
    rewrite pow2_split by lia.
      apply Rmult_le_compat_r; [apply bpow_ge_0 | apply IZR_le; lia].
Qed.

(* And the second narrowing of `settle` changes no value. *)
Lemma settle_row x : Forall single x -> D.settled (D.settle x) = true /\
  forall b, In b x -> let y := D.to_grid (D.power_below (D.top x) * 0x1p-23) b in
    single (D.narrow y) /\ V (D.narrow y) = V y.
Proof.
  intros S. rewrite Forall_forall in S.
  assert (Fi : Forall fin x) by (apply Forall_forall; intros a I; now apply S).
  destruct x as [|x0 xs] eqn:Ex; [split; [reflexivity | easy]|]. rewrite <- Ex in *.
  assert (Ne : x <> []) by (now rewrite Ex).
  destruct (zeros_or x) as [Z | (x1 & I1 & N1)].
  { unfold D.settle. rewrite (top_zeros x Ne Fi Z).
  change (D.power_below 0 * 0x1p-23)%float with 0%float.
    assert (E : map (fun a => D.narrow (D.to_grid 0 a)) x = repeat 0%float (length x)).
    { clear - Fi Z. induction Fi as [|a l Fa _ IH]; simpl; [reflexivity|].
      rewrite to_grid_zero by (auto; apply Z; now left). f_equal.
      apply IH. intros b I. apply Z. now right. }
    split.
    2: { intros b I. cbv zeta.
      rewrite to_grid_zero by (try apply Z; auto; now apply (proj1 (Forall_forall _ _) Fi)).
      change (D.narrow 0) with 0%float. split; [|reflexivity]. split; [finite|]. rewrite V_0.
      split; [apply generic_format_0 | rewrite Rabs_R0; apply bpow_gt_0]. }
    rewrite E. unfold D.settled. cbv zeta. apply forallb_forall. intros a I.
    rewrite (top_zeros (repeat 0%float (length x))).
    - apply repeat_spec in I as ->. now vm_compute.
    - rewrite Ex. easy.
    - apply Forall_forall. intros b J. apply repeat_spec in J as ->. finite.
    - intros b J. apply repeat_spec in J as ->. exact V_0. }
  set (t := D.top x).
  assert (Fa : Forall fin (map abs x)).
  { apply Forall_map. eapply Forall_impl; [|exact Fi]. intros b. apply abs_val. }
  destruct (largest_val (map abs x)) as [Im Lm]; [now rewrite Ex | exact Fa|].
  fold (D.top x) in Im, Lm. fold t in Im, Lm.
  assert (Le : forall b, In b x -> Rabs (V b) <= V t).
  { intros b I. destruct (abs_val b) as [<- _]. apply Lm. now apply in_map. }
  apply in_map_iff in Im as (a & Ea & Ia). pose proof (S a Ia) as Sa.
  destruct (abs_val a) as [Va Fabs]. rewrite Ea in Va, Fabs. specialize (Fabs (proj1 Sa)).
  assert (Pt : 0 < V t) by (pose proof (Le x1 I1); pose proof (Rabs_pos_lt _ N1); lra).
  pose proof (single_tame a Sa) as Ta. destruct (tame_val a Ta) as [_ Ba]. rewrite <- Va in Ba.
  destruct Ba as [Q | Ba]; [rewrite Q, Rabs_R0 in Va; lra|].
  assert (M104 : IZR (2^24 - 1) * pow2 104 < pow2 128).
  { change 128%Z with (24 + 104)%Z. rewrite pow2_split by lia.
  apply Rmult_lt_compat_r; [apply bpow_gt_0 | apply IZR_lt; lia]. }
  destruct (power_below_pow2 t Fabs) as (k & Vp & Fp & _ & Kb).
  { split; [eapply Rle_trans; [|apply Ba]; apply up; lia|].
  apply Rle_trans with (pow2 128); [lra | apply up; lia]. }
  assert (Kr : (-149 <= k <= 127)%Z).
  { split; apply Z.lt_succ_r, (lt_bpow radix2); unfold Z.succ; [lra|].
    apply Rle_lt_trans with (V t); [lra|]. change (127 + 1)%Z with 128%Z. lra. }
  assert (V23 : V 0x1p-23 = pow2 (-23)) by (value; simpl; lra).
  destruct (mul_val (D.power_below t) 0x1p-23) as [Vg Fg]; [exact Fp | finite | |].
  { rewrite Vp, V23, <- bpow_plus, Rabs_pos_eq by apply bpow_ge_0. apply up. lia. }
  rewrite Vp, V23, <- bpow_plus in Vg. unfold rnd in Vg.
  rewrite round_generic in Vg; [|apply valid_rnd_N | apply generic_format_bpow; unfold FLT_exp;
    lia].
  replace (k + -23)%Z with (k - 23)%Z in Vg by lia.
  set (g := (D.power_below t * 0x1p-23)%float) in *. set (u := Z.max (k - 23) (-149)).
  assert (Lt : forall b, In b x -> Rabs (V b) < pow2 (k + 1)) by (intros b I; eapply Rle_lt_trans;
    [now apply Le | apply Kb]).
  assert (B51 : forall r, Rabs r <= V t -> Rabs r <= pow2 (51 + (k - 23))).
  { intros r R. eapply Rle_trans; [exact R|]. apply Rle_trans with (pow2 (k + 1));
    [lra | apply up; lia]. }
  assert (Gt : on_grid (k - 23) (V t)).
  { rewrite Va. destruct (on_grid_32 a k Sa (Lt a Ia)) as [H1 H2].
    assert (H : on_grid (k - 23) (V a)).
    { destruct (Z_le_gt_dec (-149) (k - 23)) as [L | L];
      [apply H2; [exact L | rewrite <- Va; apply Kb]|].
      now replace (k - 23)%Z with (Z.min (k - 23) (-149)) by lia. }
    destruct H as [n ->]. exists (Z.abs n). rewrite Rabs_mult, (Rabs_pos_eq (pow2 _)),
      abs_IZR by apply bpow_ge_0. reflexivity. }
  (* each number, on the grid *)
  assert (Y : forall b, In b x -> let y := D.to_grid g b in fin y /\ on_grid u (V y) /\
    Rabs (V y) <= V t /\
    (on_grid (k - 23) (V b) -> V y = V b)).
  { intros b I y. destruct (to_grid_val g b (k - 23) Fg (proj1 (S b I)) Vg) as (E & Fy & [n Hn]
    & Near); [lia | |].
    { apply B51. now apply Le. }
    fold y in E, Fy, Hn, Near. assert (Fix : on_grid (k - 23) (V b) -> V y = V b).
    { intros H. rewrite E. apply round_to_fixed; [lia | apply B51; now apply Le | exact H]. }
    split; [exact Fy|]. split; [|split; [|exact Fix]].
    - unfold u. destruct (Z_le_gt_dec (-149) (k - 23)) as [L | L].
      + rewrite Z.max_l by lia. now exists n.
      + rewrite Z.max_r by lia. destruct (on_grid_32 b k (S b I) (Lt b I)) as [H _].
        rewrite Fix; [|now replace (k - 23)%Z with (Z.min (k - 23) (-149)) by lia].
        destruct (on_grid_32 b 127 (S b I)) as [H' _]; [apply S, I | exact H'].
    - destruct Gt as [T HT]. pose proof (bpow_gt_0 radix2 (k - 23)) as P.
      pose proof (Le b I) as Lb. rewrite HT in Lb. rewrite Hn, HT. rewrite Hn in Near.
      rewrite Rabs_mult, (Rabs_pos_eq (pow2 _)), <- abs_IZR by apply bpow_ge_0.
      apply Rmult_le_compat_r; [lra|]. apply IZR_le. apply Z.lt_succ_r. unfold Z.succ. apply lt_IZR.
      rewrite plus_IZR, abs_IZR. apply Rmult_lt_reg_r with (pow2 (k - 23)); [exact P|].
      rewrite <- (Rabs_pos_eq (pow2 (k - 23))) at 1 by lra. rewrite <- Rabs_mult.
      pose proof (Rabs_triang (IZR n * pow2 (k - 23) - V b) (V b)) as Tr.
      replace (_ - V b + V b) with (IZR n * pow2 (k - 23)) in Tr by ring. lra. }
  assert (Zs : forall b, In b x -> let z := D.narrow (D.to_grid g b) in single z /\
    V z = V (D.to_grid g b)).
  { intros b I z. destruct (Y b I) as (Fy & Gy & By & _).
    assert (F32 : generic_format radix2 (FLT_exp (-149) 24) (V (D.to_grid g b))).
    { apply (format_32 u k); [unfold u; lia | unfold u; lia | exact Gy | lra]. }
    assert (R : rnd32 (V (D.to_grid g b)) = V (D.to_grid g b)) by (apply round_generic;
      [apply valid_rnd_N | exact F32]).
    destruct (narrow_val (D.to_grid g b)) as [E F'].
    - split; [exact Fy|]. destruct (Req_dec (V (D.to_grid g b)) 0) as [Q | Q]; [now left | right].
    split.
      + destruct Gy as [n Hn]. rewrite Hn, Rabs_mult, (Rabs_pos_eq (pow2 _)),
        <- abs_IZR by apply bpow_ge_0.
        apply Rle_trans with (pow2 u); [apply up; unfold u; lia|].
        rewrite <- (Rmult_1_l (pow2 u)) at 1.
        apply Rmult_le_compat_r; [apply bpow_ge_0|]. apply IZR_le.
        assert (n <> 0%Z); [|lia]. intros ->. apply Q. rewrite Hn. ring.
      + eapply Rle_trans; [exact By|]. apply Rle_trans with (pow2 128); [lra | apply up; lia].
    - rewrite R. lra.
    - fold z in E, F'. rewrite R in E. split; [|exact E]. split; [exact F'|]. rewrite E.
    split; [exact F32 | lra]. }
  set (z := fun b => D.narrow (D.to_grid g b)).
  assert (Et : D.top (map z x) = t).
  { assert (Fz : Forall fin (map abs (map z x))).
    { apply Forall_map, Forall_map, Forall_forall. intros b I. apply abs_val. now apply Zs. }
    destruct (largest_val (map abs (map z x))) as [J L]; [now rewrite Ex | exact Fz|].
    fold (D.top (map z x)) in J, L.
    assert (Va' : V (z a) = V a).
    { unfold z. rewrite (proj2 (Zs a Ia)). apply Y; [exact Ia|].
    destruct (on_grid_32 a k Sa (Lt a Ia)) as [H1 H2].
      destruct (Z_le_gt_dec (-149) (k - 23)) as [Q | Q];
        [apply H2; [exact Q | rewrite <- Va; apply Kb]|].
      now replace (k - 23)%Z with (Z.min (k - 23) (-149)) by lia. }
    apply same_value; auto.
    - exact (proj1 (Forall_forall _ _) Fz _ J).
    - apply Rle_antisym.
      + apply in_map_iff in J as (w & <- & J). apply in_map_iff in J as (b & <- & I).
      destruct (abs_val (z b)) as [-> _].
        unfold z. rewrite (proj2 (Zs b I)). now apply Y.
      + rewrite Va, <- Va'. destruct (abs_val (z a)) as [<- _]. now apply L, in_map, in_map.
    - apply in_map_iff in J as (w & Ew & J). intros Q.
      pose proof (L (abs (z a)) (in_map _ _ _ (in_map _ _ _ Ia))) as La.
      destruct (abs_val (z a)) as [Vz _].
      rewrite Vz, Va', <- Va, Q in La. lra. }
  split; [|intros b I; now apply Zs].
  change (D.settle x) with (map z x). unfold D.settled. rewrite Et. fold g.
  apply forallb_forall. intros w J. apply in_map_iff in J as (b & <- & I).
  destruct (Zs b I) as [Sz Vz].
  fold (z b) in Sz, Vz. rewrite (single_tame _ Sz). cbn [andb].
  destruct (Y b I) as (_ & Gy & By & _). rewrite <- Vz in Gy, By.
  destruct (to_grid_val g (z b) (k - 23) Fg (proj1 Sz) Vg) as (E & Fy & _); [lia | now apply B51|].
  rewrite eqb_val by (auto; apply Sz). apply Req_bool_true. rewrite E.
  apply round_to_fixed; [lia | now apply B51|]. apply (grid_le _ u); [unfold u; lia | exact Gy].
Qed.

Theorem settle_settled x : Forall single x -> D.settled (D.settle x) = true.
Proof. intros S. now apply settle_row. Qed.

Print Assumptions single_tame.
Print Assumptions settle_settled.
