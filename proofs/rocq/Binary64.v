(* Binary64.v -- T7 (order), for the binary64 data themselves.

   Exactness.v speaks of real values.  A machine number has more: a sign bit that tells +0.0 from
   -0.0, and an exponent that can overflow.  minikv compares bits, so this file repeats T7 with
   Flocq's IEEE-754 operations, round to nearest even:

   * a sum on a grid 2^u with u <= 970 does not overflow, since 2^53 * 2^970 < 2^1024;
   * a result other than zero has one bit pattern, and zero has one as soon as a +0.0 takes part
     anywhere: it is the initial accumulator of most loops, but not of all.  This is why the
     operations of `Exact` end with `+ 0.0`. *)
From Coq Require Import ZArith Reals List Permutation Lia Lra.
From Flocq Require Import Core BinarySingleNaN.
From Minikv Require Import Exactness.
Import ListNotations.
Open Scope R_scope.

Notation b64 := (binary_float 53 1024).
#[local] Instance Hprec : Prec_gt_0 53 := eq_refl.
#[local] Instance Hmax : Prec_lt_emax 53 1024 := eq_refl.
Notation rne := mode_NE.
Definition zero : b64 := B754_zero false.        (* +0.0 *)

(** * T7: the orders of evaluation, now over binary64 data *)
Inductive btree := BZero | BNum (x : b64) | BMul (x w : b64) | BFma (x w : b64) (acc : btree)
                 | BAdd (l r : btree).

Fixpoint beval (t : btree) : b64 :=
  match t with
  | BZero => zero | BNum x => x | BMul x w => Bmult rne x w
  | BFma x w a => Bfma rne x w (beval a)
  | BAdd l r => Bplus rne (beval l) (beval r)
  end.

Definition one : b64 := Bone.
Fixpoint bleaves (t : btree) : list (b64 * b64) :=
  match t with
  | BZero => [] | BNum x => [(x, one)] | BMul x w => [(x, w)]
  | BFma x w a => (x, w) :: bleaves a
  | BAdd l r => bleaves l ++ bleaves r
  end.

Definition finite2 (p : b64 * b64) : Prop := is_finite (fst p) = true /\ is_finite (snd p) = true.
Definition real2 (p : b64 * b64) : R * R := (B2R (fst p), B2R (snd p)).
Definition bdot (l : list (b64 * b64)) : R := dot (map real2 l).
Definition bfits (u : Z) (l : list (b64 * b64)) : Prop :=
  (-1074 <= u <= 970)%Z /\ Forall finite2 l /\ fits u (map real2 l).

(* Does a +0.0 take part? *)
Fixpoint has_zero (t : btree) : bool :=
  match t with
  | BZero => true | BNum _ | BMul _ _ => false | BFma _ _ a => has_zero a
  | BAdd l r => has_zero l || has_zero r
  end.

(* x is finite, has the value r, and if r = 0 and z then x is +0.0, not -0.0. *)
Definition holds (z : bool) (x : b64) (r : R) : Prop :=
  is_finite x = true /\ B2R x = r /\ (z = true -> r = 0 -> Bsign x = false).

(** * One operation at a time *)
Lemma no_overflow u l : (-1074 <= u <= 970)%Z -> fits u l ->
  round radix2 (SpecFloat.fexp 53 1024) (round_mode rne) (dot l) = dot l /\
  Rlt_bool (Rabs (round radix2 (SpecFloat.fexp 53 1024) (round_mode rne) (dot l))) (pow2 1024)
  = true.
Proof.
  intros Hu F. pose proof (fits_rnd u l (proj1 Hu) F) as E. unfold rnd in E.
  change (SpecFloat.fexp 53 1024) with (FLT_exp (-1074) 53).
  change (round_mode rne) with ZnearestE. rewrite E. split; [reflexivity|].
  apply Rlt_bool_true. destruct F as [_ B].
  eapply Rle_lt_trans; [eapply Rle_trans; [apply sum_le_sumabs | exact B] | apply bpow_lt; lia].
Qed.

Lemma sign_nonzero (x : b64) : is_finite x = true -> B2R x <> 0 -> Bsign x = Rlt_bool (B2R x) 0.
Proof.
  destruct x as [s|s| |s m e H]; intros F N; try easy. simpl in *. destruct s; simpl.
  - rewrite Rlt_bool_true; [reflexivity|]. now apply F2R_lt_0.
  - rewrite Rlt_bool_false; [reflexivity|]. now apply F2R_ge_0.
Qed.

Lemma opposite_signs (x y : b64) : is_finite x = true -> is_finite y = true ->
  B2R x + B2R y = 0 -> B2R x <> 0 -> Bsign y = negb (Bsign x).
Proof.
  intros Fx Fy E N. rewrite !sign_nonzero by (auto; lra).
  destruct (Rlt_bool_spec (B2R x) 0), (Rlt_bool_spec (B2R y) 0); simpl; (reflexivity || lra).
Qed.

Lemma plus_holds u z1 z2 x y l m : (-1074 <= u <= 970)%Z -> fits u (l ++ m) ->
  holds z1 x (dot l) -> holds z2 y (dot m) -> holds (z1 || z2) (Bplus rne x y) (dot (l ++ m)).
Proof.
  intros Hu F (Fx & Vx & Sx) (Fy & Vy & Sy). destruct (no_overflow u _ Hu F) as [E O].
  assert (D : dot (l ++ m) = dot l + dot m) by (unfold dot, prods; now rewrite map_app, sum_app).
  pose proof (Bplus_correct 53%Z 1024%Z Hprec Hmax rne x y Fx Fy) as C.
  rewrite Vx, Vy, <- D, O, E in C. destruct C as (V & Fi & S).
  repeat split; auto. intros Hz D0. rewrite S, D0, Rcompare_Eq by reflexivity.
  destruct (Req_dec (B2R x) 0) as [X|X].
  - apply Bool.orb_true_iff in Hz as [->| ->].
    + now rewrite Sx by congruence.
    + rewrite Sy by lra. apply Bool.andb_false_r.
  - rewrite (opposite_signs x y) by (auto; lra). now destruct (Bsign x).
Qed.

Lemma mult_holds u x w : (-1074 <= u <= 970)%Z -> finite2 (x, w) -> fits u [real2 (x, w)] ->
  holds false (Bmult rne x w) (dot [real2 (x, w)]).
Proof.
  intros Hu [Fx Fw] F. destruct (no_overflow u _ Hu F) as [E O]. simpl in Fx, Fw.
  assert (D : dot [real2 (x, w)] = B2R x * B2R w) by (unfold dot; simpl; ring).
  pose proof (Bmult_correct 53%Z 1024%Z Hprec Hmax rne x w) as C.
  rewrite <- D, O, E, Fx, Fw in C. destruct C as (V & Fi & _). now repeat split.
Qed.

Lemma sign_mult (x w : b64) : is_finite x = true -> is_finite w = true -> B2R x * B2R w <> 0 ->
  xorb (Bsign x) (Bsign w) = Rlt_bool (B2R x * B2R w) 0.
Proof.
  intros Fx Fw N.
  assert (X : B2R x <> 0) by (intros X; rewrite X in N; lra).
  assert (W : B2R w <> 0) by (intros W; rewrite W in N; lra).
  rewrite !sign_nonzero by assumption.
  destruct (Rlt_bool_spec (B2R x) 0), (Rlt_bool_spec (B2R w) 0),
    (Rlt_bool_spec (B2R x * B2R w) 0); simpl; (reflexivity || nra).
Qed.

Lemma fma_holds u z x w a l : (-1074 <= u <= 970)%Z -> finite2 (x, w) ->
  fits u (real2 (x, w) :: l) ->
  holds z a (dot l) -> holds z (Bfma rne x w a) (dot (real2 (x, w) :: l)).
Proof.
  intros Hu [Fx Fw] F (Fa & Va & Sa). destruct (no_overflow u _ Hu F) as [E O]. simpl in Fx, Fw.
  assert (D : dot (real2 (x, w) :: l) = B2R x * B2R w + dot l) by reflexivity.
  pose proof (Bfma_correct 53%Z 1024%Z Hprec Hmax rne x w a Fx Fw Fa) as C.
  cbv zeta in C. rewrite Va, <- D, O, E in C. destruct C as (V & Fi & S).
  repeat split; auto. intros Hz D0. rewrite S, D0, Rcompare_Eq by reflexivity. unfold Bfma_szero.
  destruct (Req_dec (dot l) 0) as [A|A].
  - rewrite (Sa Hz A). now destruct (xorb _ _).
  - rewrite sign_mult, (sign_nonzero a) by (auto; lra). rewrite Va.
    destruct (Rlt_bool_spec (B2R x * B2R w) 0), (Rlt_bool_spec (dot l) 0); simpl;
      (reflexivity || lra).
Qed.

(** * T7, bit for bit *)
Lemma B2R_one : B2R one = 1.
Proof. apply Bone_correct. Qed.
#[local] Opaque one.

Lemma tree_holds u t : bfits u (bleaves t) -> holds (has_zero t) (beval t) (bdot (bleaves t)).
Proof.
  intros (Hu & Fi & F). unfold bdot.
  induction t as [|x|x w|x w a IH|l IHl r IHr]; cbn [bleaves beval has_zero] in *.
  - now repeat split.
  - apply Forall_inv in Fi as [Fx _]. repeat split; auto; [|easy].
    unfold dot, prods; simpl. rewrite B2R_one. ring.
  - apply Forall_inv in Fi. now apply (mult_holds u).
  - pose proof (Forall_inv Fi). apply Forall_inv_tail in Fi.
    apply (fma_holds u); auto. apply IH; auto. exact (proj2 (fits_app u [real2 (x, w)] _ F)).
  - apply Forall_app in Fi as [Fl Fr]. rewrite map_app in *.
    destruct (fits_app u _ _ F) as [Gl Gr]. apply (plus_holds u); auto.
Qed.

(* In any order the machine's result is finite and has the true value; a zero is +0.0 if one took
   part. *)
Theorem value_exact u l t : bfits u l -> Permutation (bleaves t) l ->
  holds (has_zero t) (beval t) (bdot l).
Proof.
  intros (Hu & Fi & F) P. apply Permutation_sym in P.
  assert (Q : Permutation (map real2 l) (map real2 (bleaves t))) by now apply Permutation_map.
  replace (bdot l) with (bdot (bleaves t)).
  - apply (tree_holds u). split; [exact Hu|]. split.
    + exact (Permutation_Forall P Fi).
    + exact (fits_perm u _ _ Q F).
  - symmetry. exact (sum_perm _ _ (Permutation_map _ Q)).
Qed.

(* So any two orders give the same bits, if a +0.0 takes part in both or the result is not 0 ... *)
Theorem bits_exact u l t1 t2 : bfits u l ->
  Permutation (bleaves t1) l -> Permutation (bleaves t2) l ->
  (has_zero t1 && has_zero t2)%bool = true \/ bdot l <> 0 -> beval t1 = beval t2.
Proof.
  intros F P1 P2 Z. destruct (value_exact u l t1 F P1) as (F1 & V1 & S1).
  destruct (value_exact u l t2 F P2) as (F2 & V2 & S2).
  apply B2R_Bsign_inj; auto; [congruence|]. destruct (Req_dec (bdot l) 0) as [D|D].
  - destruct Z as [Z|Z]; [|easy]. apply Bool.andb_true_iff in Z as [Z1 Z2].
    now rewrite S1, S2.
  - rewrite !sign_nonzero by congruence. congruence.
Qed.

(* ... and so without any condition for code that adds +0.0 at the end, as `Exact` does. *)
Corollary plus_zero_exact u l t1 t2 : bfits u l ->
  Permutation (bleaves t1) l -> Permutation (bleaves t2) l ->
  beval (BAdd t1 BZero) = beval (BAdd t2 BZero).
Proof.
  intros F P1 P2. apply (bits_exact u l); simpl; rewrite ?app_nil_r, ?Bool.orb_true_r; auto.
Qed.

(** * The hypotheses of T7 cannot be dropped *)
Definition of_int (n : Z) : b64 := binary_normalize 53%Z 1024%Z Hprec Hmax rne n 0 false.
Notation int n := (BNum (of_int n)).

(* The absolute sum 2^53 + 2 is two steps too much: the order shows.  (B2SF drops the proof that
   Flocq keeps inside a float, so that this computes.) *)
Example order_matters_beyond :
  B2SF (beval (BAdd (BAdd (int (2^53)) (int 1)) (int 1))) = B2SF (of_int (2^53)) /\
  B2SF (beval (BAdd (int (2^53)) (BAdd (int 1) (int 1)))) = B2SF (of_int (2^53 + 2)) /\
  B2SF (of_int (2^53)) <> B2SF (of_int (2^53 + 2)).
Proof. now vm_compute. Qed.

(* A lone product (-1) * 0 is -0.0, and +0.0 once a +0.0 is added. *)
Example minus_zero :
  let t := BMul (of_int (-1)) (of_int 0) in
  Bsign (beval t) = true /\ Bsign (beval (BAdd t BZero)) = false.
Proof. now vm_compute. Qed.

Print Assumptions value_exact.
Print Assumptions bits_exact.
Print Assumptions plus_zero_exact.
Print Assumptions order_matters_beyond.
Print Assumptions minus_zero.
