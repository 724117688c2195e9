(* Turn.v -- the rotation of a query or a key by its position: a row of finite float32 numbers stays
   one.  The bounds are crude, 2^30 for sine and cosine; Elementary.v has the sharp ones. *)
From Coq Require Import ZArith Reals List Permutation Lia Lra Bool Floats.
From Flocq Require Import Core BinarySingleNaN PrimFloat.
From Minikv Require Import Exactness Grids Binary64 Values Machine Total Narrow Settle Hidden
  NoRaise
  Range Norm.
From Minikv Require Decoder.
Import ListNotations.
Open Scope R_scope.
#[local] Existing Instances Binary64.Hprec Binary64.Hmax.
#[local] Instance valid_exp : Valid_exp fexp64 := FLT_exp_valid (-1074) 53.

Lemma sum_bound x y e : fin x -> fin y -> Rabs (V x) <= pow2 e -> Rabs (V y) <= pow2 e ->
  (-1000 <= e <= 900)%Z -> fin (x + y)%float /\ Rabs (V (x + y)%float) <= pow2 (e + 1).
Proof.
  intros Fx Fy Bx By E. assert (P : Rabs (V x + V y) <= pow2 (e + 1)).
  { eapply Rle_trans; [apply Rabs_triang|]. rewrite bpow_plus. simpl (bpow radix2 1). lra. }
  destruct (add_val x y Fx Fy) as [Va Fa]; [small|]. split; [exact Fa|]. rewrite Va.
  apply rnd_le; [lia | exact P].
Qed.
(* x - n * part, a little more than x *)
Lemma less_part x n part a : fin x -> fin n -> fin part -> Rabs (V x) <= a -> 0 <= a <= 2 ->
  Rabs (V n) <= pow2 22 -> Rabs (V part) <= pow2 (-33) ->
  fin (x - n * part)%float /\ Rabs (V (x - n * part)%float) <= a + pow2 (-10).
Proof.
  intros Fx Fn Fp Bx A Bn Bp.
  destruct (product n part 22 (-33) Fn Fp Bn Bp) as [Fm Bm]; [lia|].
  change (22 + -33)%Z with (-11)%Z in Bm.
  assert (P11 : pow2 (-10) = 2 * pow2 (-11)) by (simpl; lra).
  assert (Q : Rabs (V x - V (n * part)%float) <= a + pow2 (-11)).
  { unfold Rminus. eapply Rle_trans; [apply Rabs_triang|]. rewrite Rabs_Ropp. lra. }
  assert (Q2 : Rabs (V x - V (n * part)%float) <= pow2 2).
  { simpl (bpow radix2 2). simpl (bpow radix2 (-11)) in Q. lra. }
  destruct (sub_val x (n * part) Fx Fm) as [Vs Fs]; [small|]. split; [exact Fs|].
  pose proof (rnd_error _ 2 ltac:(lia) Q2) as E. rewrite <- Vs in E.
  assert (T : pow2 (2 - 53) <= pow2 (-11)) by (apply up; lia).
  replace (V (x - n * part)%float) with ((V (x - n * part)%float - (V x - V (n * part)%float))
    + (V x - V (n * part)%float)) by ring.
  eapply Rle_trans; [apply Rabs_triang|]. lra.
Qed.
Lemma reduced x : fin x -> Rabs (V x) <= pow2 20 ->
  let n := D.nearest (x * 0x1.45f306dc9c883p-1)%float in
  let r := fold_left (fun r part => r - n * part)%float D.half_pi x in
  fin r /\ Rabs (V r) <= pow2 1.
Proof.
  intros Fx Bx n r. pose proof (Rabs_le_inv _ _ Bx) as Bx'. simpl (bpow radix2 20) in Bx'.
  assert (Vc : V 0x1.45f306dc9c883p-1 = 5734161139222659 / 9007199254740992) by (value; simpl; lra).
  assert (B1 : Rabs (V x * V 0x1.45f306dc9c883p-1) <= pow2 20).
  { rewrite Vc. apply Rabs_le. simpl (bpow radix2 20). lra. }
  destruct (mul_val x 0x1.45f306dc9c883p-1 Fx) as [Vy Fy]; [finite | small |].
  pose proof (rnd_error _ 20 ltac:(lia) B1) as Ey. rewrite <- Vy in Ey.
  assert (By : Rabs (V (x * 0x1.45f306dc9c883p-1)%float) <= pow2 20) by (rewrite Vy;
    apply rnd_le; [lia | exact B1]).
  destruct (nearest_val _ Fy) as (k & Fn & Vn & Nk); [small|]. fold n in Fn, Vn.
  set (y := V (x * 0x1.45f306dc9c883p-1)%float) in *.
  apply Rabs_le_inv in Ey, Nk. pose proof (Rabs_le_inv _ _ By) as By'. rewrite Vc in Ey.
  simpl (bpow radix2 (20 - 53)) in Ey. simpl (bpow radix2 20) in By'.
  assert (Bn : Rabs (V n) <= pow2 22).
  { rewrite Vn. apply Rabs_le. simpl (bpow radix2 22). lra. }
  assert (Vp : V 0x1.921fb544p+0 = 6746518852 / 4294967296) by (value; simpl; lra).
  assert (B2 : Rabs (V n * V 0x1.921fb544p+0) <= pow2 23).
  { rewrite Vn, Vp. apply Rabs_le. simpl (bpow radix2 23). lra. }
  destruct (mul_val n 0x1.921fb544p+0 Fn) as [Vm Fm]; [finite | small |].
  pose proof (rnd_error _ 23 ltac:(lia) B2) as Em. rewrite <- Vm in Em. apply Rabs_le_inv in Em.
  rewrite Vn, Vp in Em. simpl (bpow radix2 (23 - 53)) in Em.
  set (m := V (n * 0x1.921fb544p+0)%float) in *.
  assert (D0 : Rabs (V x - m) <= 1) by (apply Rabs_le; lra).
  destruct (sub_val x (n * 0x1.921fb544p+0) Fx Fm) as [Vs Fs].
  { fold m. eapply Rle_trans; [exact D0|]. change 1 with (pow2 0). apply up. lia. }
  assert (D1 : Rabs (V (x - n * 0x1.921fb544p+0)%float) <= 1).
  { rewrite Vs. fold m. change 1 with (pow2 0) in *. apply rnd_le; [lia | exact D0]. }
  assert (Small : forall z, 0 <= V z <= pow2 (-33) -> Rabs (V z) <= pow2 (-33)).
  { intros z H. rewrite Rabs_pos_eq; lra. }
  assert (P2 : 0 <= V 0x1.0b4611a6p-34 <= pow2 (-33)) by (split; bounded).
  assert (P3 : 0 <= V 0x1.3198a2ep-69 <= pow2 (-33)) by (split; bounded).
  assert (P4 : 0 <= V 0x1.b839a252049c1p-104 <= pow2 (-33)) by (split; bounded).
  assert (Pd : pow2 (-10) = 1 / 1024) by (simpl; lra).
  destruct (less_part _ n 0x1.0b4611a6p-34 1 Fs Fn) as [F2 D2]; auto; [finite | lra |].
  destruct (less_part _ n 0x1.3198a2ep-69 (1 + pow2 (-10)) F2 Fn) as [F3 D3]; auto;
    [finite | lra |].
  destruct (less_part _ n 0x1.b839a252049c1p-104 (1 + pow2 (-10) + pow2 (-10)) F3 Fn) as [F4 D4];
    auto; [finite | lra |].
  unfold r, D.half_pi. cbn [fold_left]. split; [exact F4|]. simpl (bpow radix2 1). lra.
Qed.

(* A polynomial by Horner's rule, with coefficients up to 1. *)
Lemma horner square cs : fin square -> Rabs (V square) <= pow2 2 ->
  Forall (fun c => fin c /\ Rabs (V c) <= pow2 0) cs -> forall s e, (0 <= e)%Z ->
  (e + 3 * Z.of_nat (length cs) <= 900)%Z -> fin s -> Rabs (V s) <= pow2 e ->
  let r := fold_left (fun s c => (s + c) * square)%float cs s in
  fin r /\ Rabs (V r) <= pow2 (e + 3 * Z.of_nat (length cs)).
Proof.
  intros Fq Bq. induction 1 as [|c cs [Fc Bc] _ IH]; intros s e E0 E1 Fs Bs.
  - cbn [fold_left length]. rewrite Z.mul_0_r, Z.add_0_r. now split.
  - cbn [fold_left length] in *. rewrite Nat2Z.inj_succ in *.
    destruct (sum_bound s c e Fs Fc Bs) as [Fa Ba]; [small | lia |].
    destruct (product _ square (e + 1) 2 Fa Fq Ba Bq) as [Fm Bm]; [lia|].
    destruct (IH _ (e + 1 + 2)%Z ltac:(lia) ltac:(lia) Fm Bm) as [Fr Br]. split; [exact Fr|].
    now replace (e + 3 * Z.succ (Z.of_nat (length cs)))%Z
      with (e + 1 + 2 + 3 * Z.of_nat (length cs))%Z by lia.
Qed.
Definition tiny_coefficient (c : float) : bool := (abs c <=? 1)%float.
Lemma tiny_coefficients cs : forallb tiny_coefficient cs = true ->
  Forall (fun c => fin c /\ Rabs (V c) <= pow2 0) cs.
Proof.
  apply forallb_Forall. intros c H. assert (Fc : fin c) by (apply (leb_fin _ _ H); finite).
  split; [exact Fc|]. unfold tiny_coefficient in H. destruct (abs_val c) as [Va Fa].
  rewrite leb_val, V_1, Va in H by (auto; finite). simpl (bpow radix2 0).
  now destruct (Rle_bool_spec (Rabs (V c)) 1).
Qed.

Lemma turns x : fin x -> Rabs (V x) <= pow2 20 ->
  let '(_, s, c) := D.quarter_turns x in finite_at_most (pow2 30) s /\ finite_at_most (pow2 30) c.
Proof.
  intros Fx Bx. unfold D.quarter_turns. cbv zeta. destruct (reduced x Fx Bx) as [Fr Br].
  cbv zeta in Fr, Br. set (r := fold_left _ D.half_pi x) in *.
  destruct (product r r 1 1 Fr Fr Br Br) as [Fq Bq]; [lia|]. change (1 + 1)%Z with 2%Z in Bq.
  set (square := (r * r)%float) in *.
  destruct (product 0 square 0 2) as [F0 B0]; [finite | exact Fq | | exact Bq | lia |].
  { rewrite V_0, Rabs_R0. apply bpow_ge_0. }
  assert (Series : forall cs, length cs = 8%nat -> forallb tiny_coefficient cs = true ->
    let s := fold_left (fun s c => (s + c) * square)%float cs (0 * square)%float in
    fin s /\ Rabs (V s) <= pow2 26).
  { intros cs L T. pose proof (horner square cs Fq Bq (tiny_coefficients cs T) (0 * square)%float
      2 ltac:(lia))
      as H.
    rewrite L in H. specialize (H ltac:(lia) F0 B0). exact H. }
  destruct (Series D.sin_series eq_refl) as [Fs Bs]; [now vm_compute|].
  destruct (Series D.cos_series eq_refl) as [Fc Bc]; [now vm_compute|]. cbv zeta in *.
  set (s := fold_left _ D.sin_series _) in *. set (c := fold_left _ D.cos_series _) in *. split.
  - destruct (product s r 26 1 Fs Fr Bs Br) as [Fm Bm]; [lia|].
    destruct (sum_bound _ r 27 Fm Fr Bm) as [Fa Ba]; [small | lia | split; [exact Fa | small]].
  - assert (V5 : V 0.5 = / 2) by (value; simpl; lra).
    destruct (sub_val c 0.5 Fc) as [Vd Fd]; [finite | |].
    { unfold Rminus. eapply Rle_trans; [apply Rabs_triang|]. rewrite Rabs_Ropp, V5.
      rewrite (Rabs_pos_eq (/ 2)) by lra. apply Rle_trans with (pow2 27); [|apply up; lia].
      simpl (bpow radix2 27). simpl (bpow radix2 26) in Bc. lra. }
    (* |c - 1/2| <= 2^26 + 1/2, a whole number of halves *)
    assert (Bd : Rabs (V (c - 0.5)%float) <= pow2 27).
    { rewrite Vd. apply rnd_le; [lia|]. unfold Rminus. eapply Rle_trans; [apply Rabs_triang|].
      rewrite Rabs_Ropp, V5, (Rabs_pos_eq (/ 2)) by lra. simpl (bpow radix2 27).
      simpl (bpow radix2 26) in Bc. lra. }
    destruct (product _ square 27 2 Fd Fq Bd Bq) as [Fm Bm]; [lia|].
    destruct (sum_bound _ 1 29 Fm) as [Fa Ba]; [finite | exact Bm | | lia | now split].
    rewrite V_1, Rabs_R1. change 1 with (pow2 0). apply up. lia.
Qed.
Lemma sin_cos x : fin x -> Rabs (V x) <= pow2 20 ->
  finite_at_most (pow2 30) (D.sin x) /\ finite_at_most (pow2 30) (D.cos x).
Proof.
  intros Fx Bx. pose proof (turns x Fx Bx) as H. unfold D.sin, D.cos.
  destruct (D.quarter_turns x) as [[t s] c]. destruct H as [Hs Hc].
  assert (Opp : forall y, finite_at_most (pow2 30) y -> finite_at_most (pow2 30) (- y)%float).
  { intros y [F B]. destruct (opp_val y) as [Vo Fo]. split; [now apply Fo|].
    now rewrite Vo, Rabs_Ropp. }
  cbv zeta. split; repeat match goal with |- context [if ?b then _ else _] => destruct b end; auto.
Qed.

(** * rope *)
Lemma position_val p : INR p <= pow2 20 -> finite_at_most (pow2 20) (D.of_nat p).
Proof.
  intros P. assert (E : V D.longest = pow2 20) by (value; simpl; lra).
  destruct (of_nat_val p) as [F [[Vp _] | Vp]]; (split; [exact F|]).
  - rewrite Vp, Rabs_pos_eq by apply pos_INR. exact P.
  - exfalso. assert (L : D.no_longer D.longest (repeat tt p) = true).
    { apply short_longest. unfold short. now rewrite repeat_length. }
    unfold D.no_longer in L. rewrite repeat_length, leb_val, Vp, E in L by (auto; finite).
    rewrite Rle_bool_false in L; [easy | apply bpow_lt; lia].
Qed.
Lemma Forall_skipn {A} (P : A -> Prop) n : forall xs, Forall P xs -> Forall P (skipn n xs).
Proof. induction n; intros [|x xs] H; auto. inversion_clear H. simpl. auto. Qed.
Lemma Forall_firstn {A} (P : A -> Prop) n : forall xs, Forall P xs -> Forall P (firstn n xs).
Proof. induction n; intros [|x xs] H; simpl; auto. inversion_clear H. auto. Qed.

Theorem rope_at_most fs p xs b : INR p <= pow2 20 -> Forall (finite_at_most 1) fs ->
  (-100 <= b <= 90)%Z -> Forall (at_most (pow2 b)) xs ->
  (length (D.rope fs p xs) <= length xs)%nat /\ Forall (at_most (pow2 (b + 31))) (D.rope fs p xs).
Proof.
  intros P Fs Hb Xs. unfold D.rope. cbv zeta.
  set (angles := map (fun f => D.narrow (D.of_nat p * f)%float) fs).
  assert (A : Forall (finite_at_most (pow2 20)) angles).
  { apply finite_of, Forall_map. eapply Forall_impl; [|exact Fs]. intros f [Ff Bf].
    destruct (position_val p P) as [Fp Bp]. change 1 with (pow2 0) in Bf.
    destruct (product _ f 20 0 Fp Ff Bp Bf) as [Fm Bm]; [lia|].
    apply narrow_at_most; [apply bound_pow; lia | now split]. }
  assert (Cs : Forall (finite_at_most (pow2 30)) (map D.cos angles ++ map D.cos angles)).
  { apply Forall_app. split; apply Forall_map; (eapply Forall_impl; [|exact A]); intros a [Fa Ba];
      now apply sin_cos. }
  assert (Ss : Forall (finite_at_most (pow2 30))
    (map (fun a => - D.sin a)%float angles ++ map D.sin angles)).
  { apply Forall_app. split; apply Forall_map; (eapply Forall_impl; [|exact A]); intros a [Fa Ba];
      destruct (sin_cos a Fa Ba) as [[F B] _]; [|now split].
    destruct (opp_val (D.sin a)) as [Vo Fo]. split; [now apply Fo|]. now rewrite Vo, Rabs_Ropp. }
  assert (Xf := finite_of _ _ Xs).
  assert (Mul : forall x y, finite_at_most (pow2 b) x -> finite_at_most (pow2 30) y ->
    finite_at_most (pow2 (b + 30)) (x * y)%float).
  { intros x y [Fx Bx] [Fy By].
    destruct (product x y b 30 Fx Fy Bx By) as [Fm Bm]; [lia | now split]. }
  set (turned := D.map2 mul (skipn _ xs ++ firstn _ xs) _).
  assert (T : Forall (finite_at_most (pow2 (b + 30))) turned).
  { apply (map2_Forall _ _ _ _ _ Mul); [|exact Ss]. apply Forall_app.
    split; [now apply Forall_skipn | now apply Forall_firstn]. }
  assert (U : Forall (finite_at_most (pow2 (b + 30))) (D.map2 mul xs (map D.cos angles ++ map
    D.cos angles))).
  { now apply (map2_Forall _ _ _ _ _ Mul). }
  split.
  - rewrite map_length. etransitivity; [apply map2_length | apply map2_length].
  - apply Forall_map. revert T U. apply map2_Forall. intros x y Hx Hy.
    apply (add_at_most (pow2 (b + 30)) (pow2 (b + 30))); auto; [apply bound_pow; lia|].
    replace (b + 31)%Z with (1 + (b + 30))%Z by lia. rewrite (bpow_plus _ 1).
    simpl (bpow radix2 1). lra.
Qed.

Print Assumptions rope_at_most.
