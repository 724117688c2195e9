(* Machine.v -- what a machine may do, `orderly`: take each sum as some tree of correctly rounded
   additions, products and fused multiply-adds over the given terms, in any order, with any number
   of zeros among them.  Then, on a grid and within its bound, its sums are the true ones.

   `orderly` is the whole assumption about NumPy, BLAS, threads and padding, beside IEEE's
   elementwise operations.  Two machines are shown to be orderly: `loops`, from left to right, and
   `rights`, from right to left. *)
From Coq Require Import ZArith Reals List Permutation Lia Lra Bool Floats.
From Flocq Require Import Core BinarySingleNaN PrimFloat.
From Minikv Require Import Exactness Grids Binary64 Values.
From Minikv Require Decoder.
Import ListNotations.
Open Scope R_scope.
#[local] Existing Instances Binary64.Hprec Binary64.Hmax.
#[local] Instance valid_exp : Valid_exp fexp64 := FLT_exp_valid (-1074) 53.

(** * Sums are trees, so Binary64.v speaks of them *)
Definition pairs (xs ws : list float) : list (b64 * b64) := combine (map B xs) (map B ws).
Definition singles (xs : list float) : list (b64 * b64) := map (fun x => (B x, one)) xs.

Fixpoint dot_tree (t : btree) (xs ws : list float) : btree :=
  match xs, ws with
  | x :: xs, w :: ws => dot_tree (BAdd t (BMul (B x) (B w))) xs ws
  | _, _ => t
  end.
Lemma dot_tree_val xs : forall ws acc t, B acc = beval t ->
  B (D.dot_from acc xs ws) = beval (dot_tree t xs ws).
Proof.
  induction xs as [|x xs IH]; intros [|w ws] acc t E; simpl; auto.
  apply IH. simpl. now rewrite B_add, B_mul, E.
Qed.
Lemma dot_tree_leaves xs : forall ws t, bleaves (dot_tree t xs ws) = bleaves t ++ pairs xs ws.
Proof.
  induction xs as [|x xs IH]; intros [|w ws] t; simpl; try now rewrite app_nil_r.
  rewrite IH. simpl. now rewrite <- app_assoc.
Qed.
Lemma dot_tree_zero xs : forall ws t, has_zero t = true -> has_zero (dot_tree t xs ws) = true.
Proof. induction xs as [|x xs IH]; intros [|w ws] t H; simpl; auto. apply IH. simpl. now rewrite H.
Qed.

Definition sum_tree (t : btree) (xs : list float) :=
  fold_left (fun t x => BAdd t (BNum (B x))) xs t.
Lemma sum_tree_val xs : forall acc t, B acc = beval t ->
  B (fold_left Coq.Floats.PrimFloat.add xs acc) = beval (sum_tree t xs).
Proof. induction xs as [|x xs IH]; intros acc t E; simpl; auto. apply IH. simpl.
now rewrite B_add, E. Qed.
Lemma sum_tree_leaves xs : forall t, bleaves (sum_tree t xs) = bleaves t ++ singles xs.
Proof.
  induction xs as [|x xs IH]; intros t; simpl; [now rewrite app_nil_r|].
  unfold sum_tree in *. rewrite IH. simpl. now rewrite <- app_assoc.
Qed.
Lemma sum_tree_zero xs : forall t, has_zero t = true -> has_zero (sum_tree t xs) = true.
Proof. induction xs as [|x xs IH]; intros t H; simpl; auto. apply IH. simpl. now rewrite H. Qed.

Lemma B_0 : B 0 = zero.
Proof.
  assert (E : Prim2SF 0 = B2SF zero) by now vm_compute.
  apply B2SF_inj. unfold B. rewrite B2SF_Prim2B. exact E.
Qed.

(* What a machine may do: add the terms as any tree, with any number of zeros among them. *)
Definition zeros (pad : list (b64 * b64)) : Prop :=
  Forall (fun p => finite2 p /\ B2R (fst p) * B2R (snd p) = 0) pad.
Record orderly (M : D.machine) : Prop := {
  orderly_sum xs : exists t pad, zeros pad /\ Permutation (bleaves t) (singles xs ++ pad) /\
    B (D.sum M xs) = beval t;
  orderly_dot xs ws : exists t pad, zeros pad /\ Permutation (bleaves t) (pairs xs ws ++ pad) /\
    B (D.dot M xs ws) = beval t;
  (* and 2^20 numbers, padding included, where their sum may round *)
  orderly_estimate xs : exists t pad, zeros pad /\ Permutation (bleaves t) (singles xs ++ pad) /\
    (INR (length xs) <= pow2 20 -> INR (length (bleaves t)) <= pow2 20) /\
    B (D.estimate M xs) = beval t }.

Theorem loops_orderly : orderly D.loops.
Proof.
  split; intros xs.
  - exists (sum_tree BZero xs), []. split; [constructor|]. rewrite app_nil_r, sum_tree_leaves.
    split; [reflexivity|]. apply sum_tree_val. exact B_0.
  - intros ws. exists (dot_tree BZero xs ws), []. split; [constructor|].
    rewrite app_nil_r, dot_tree_leaves. split; [reflexivity|]. apply dot_tree_val. exact B_0.
  - exists (sum_tree BZero xs), []. split; [constructor|]. rewrite app_nil_r, sum_tree_leaves.
    split; [reflexivity|]. split; [|apply sum_tree_val; exact B_0].
    simpl. unfold singles. now rewrite map_length.
Qed.

Lemma zeros_sums pad : zeros pad ->
  sum (prods (map real2 pad)) = 0 /\ sumabs (prods (map real2 pad)) = 0.
Proof.
  unfold sumabs. induction 1 as [|p pad [_ Z] _ [I J]]; simpl; [lra|].
  unfold real2 in *. simpl. rewrite Z, Rabs_R0. lra.
Qed.
Lemma bfits_pad u l pad : bfits u l -> zeros pad -> bfits u (l ++ pad) /\ bdot (l ++ pad) = bdot l.
Proof.
  intros (Hu & Fi & G & Bd) Z. destruct (zeros_sums pad Z) as [S0 A0].
  unfold bdot, dot, bfits, fits, sumabs, prods in *. rewrite !map_app, sum_app in *.
  repeat split; try apply Hu.
  - apply Forall_app. split; [exact Fi|]. eapply Forall_impl; [|exact Z]. now intros p [].
  - apply Forall_app. split; [exact G|]. apply Forall_map, Forall_map.
    eapply Forall_impl; [|exact Z]. intros p [_ E]. unfold real2. simpl. rewrite E. apply on_grid_0.
  - rewrite ?sum_app. lra.
  - rewrite ?sum_app. lra.
Qed.

Theorem sum_exact M u xs : orderly M -> bfits u (singles xs) ->
  fin (D.sum M xs) /\ V (D.sum M xs) = bdot (singles xs).
Proof.
  intros O F. destruct (orderly_sum M O xs) as (t & pad & Z & P & E).
  destruct (bfits_pad u _ _ F Z) as [F' D']. unfold fin, V. rewrite E, <- D'.
  destruct (value_exact u _ t F' P) as (? & ? & _). now split.
Qed.
Theorem dot_exact M u xs ws : orderly M -> bfits u (pairs xs ws) ->
  fin (D.dot M xs ws) /\ V (D.dot M xs ws) = bdot (pairs xs ws).
Proof.
  intros O F. destruct (orderly_dot M O xs ws) as (t & pad & Z & P & E).
  destruct (bfits_pad u _ _ F Z) as [F' D']. unfold fin, V. rewrite E, <- D'.
  destruct (value_exact u _ t F' P) as (? & ? & _). now split.
Qed.
Lemma V_one : B2R one = 1.
Proof. apply Bone_correct. Qed.
Lemma fin_one : is_finite one = true.
Proof. apply is_finite_Bone. Qed.

Lemma singles_real xs : map real2 (singles xs) = map (fun x => (x, 1)) (map V xs).
Proof. unfold singles. rewrite !map_map. apply map_ext. intros x. unfold real2. cbn [fst snd].
now rewrite V_one. Qed.
#[local] Opaque one.
Lemma dot_singles xs : dot (map (fun x => (x, 1)) xs) = sum xs.
Proof.
  unfold dot, prods. rewrite map_map. f_equal. rewrite <- (map_id xs) at 2.
  apply map_ext. intros x. simpl. ring.
Qed.

Lemma sum_val M u xs : orderly M -> (-1074 <= u <= 970)%Z -> Forall fin xs ->
  fits u (map (fun x => (x, 1)) (map V xs)) -> fin (D.sum M xs) /\ V (D.sum M xs) = sum (map V xs).
Proof.
  intros O U Fi F. assert (Bf : bfits u (singles xs)).
  { split; [exact U|]. split; [|now rewrite singles_real]. unfold singles. apply Forall_map.
    eapply Forall_impl; [|exact Fi]. intros x Fx. split; [exact Fx | exact fin_one]. }
  destruct (sum_exact M u xs O Bf) as [Fs Vs]. split; [exact Fs|].
  rewrite Vs. unfold bdot. now rewrite singles_real, dot_singles.
Qed.

(** * Another machine: from right to left, and it always asks `total` *)
Definition right_sum (xs : list float) : float := fold_right Coq.Floats.PrimFloat.add 0%float xs.
Fixpoint right_dot (xs ws : list float) : float :=
  match xs, ws with x :: xs, w :: ws => (x * w + right_dot xs ws)%float | _, _ => 0%float end.
Definition rights : D.machine :=
  {| D.sum := right_sum; D.dot := right_dot; D.estimate := right_sum; D.doubts _ := true |}.
Theorem rights_orderly : orderly rights.
Proof.
  assert (S : forall xs, exists t, bleaves t = singles xs /\ B (right_sum xs) = beval t).
  { induction xs as [|x xs (t & L & E)]; [exists BZero; split; [reflexivity | exact B_0]|].
    exists (BAdd (BNum (B x)) t). cbn [bleaves beval right_sum fold_right singles map].
    fold (singles xs).
    rewrite L, B_add. fold (right_sum xs). now rewrite E. }
  split; intros xs.
  - destruct (S xs) as (t & L & E). exists t, []. split; [constructor|]. now rewrite app_nil_r, L.
  - intros ws. assert (P : exists t, bleaves t = pairs xs ws /\ B (right_dot xs ws) = beval t).
    { revert ws. induction xs as [|x xs IH]; intros [|w ws];
      try (exists BZero; split; [reflexivity | exact B_0]).
      destruct (IH ws) as (t & L & E). exists (BAdd (BMul (B x) (B w)) t). unfold pairs in *.
      cbn [bleaves beval right_dot map combine app]. now rewrite L, B_add, B_mul, E. }
    destruct P as (t & L & E). exists t, []. split; [constructor|]. now rewrite app_nil_r, L.
  - destruct (S xs) as (t & L & E). exists t, []. split; [constructor|]. rewrite app_nil_r, L.
    split; [reflexivity|]. split; [|exact E]. unfold singles. now rewrite map_length.
Qed.

Print Assumptions loops_orderly.
Print Assumptions rights_orderly.
Print Assumptions sum_exact.
Print Assumptions dot_exact.
