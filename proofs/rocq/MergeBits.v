(* MergeBits.v -- A1 (merge), in bits, for the decoder of Decoder.v: attention whose keys are dealt
   to blocks has the bits of attention over all of them at once.  A machine that deals the terms of
   every sum out, adds each block and then the sums of the blocks, is `orderly`.

   What makes it true is what the blocks share: the largest score, the denominator, and the grid of
   the weighted sum, each found from all blocks before the values are touched.  The rescaling of
   Merge.v is no part of it: its products and exponentials round. *)
From Coq Require Import Reals List Permutation Floats.
From Flocq Require Import Core BinarySingleNaN PrimFloat.
From Minikv Require Import Exactness Grids Binary64 Values Machine Linear Attend Machines.
From Minikv Require Decoder.
Import ListNotations.
Open Scope R_scope.
#[local] Opaque one.

(* A cut: any way to deal terms out to blocks (ranks of a ring, pages, tiles). *)
Record cut := { deal : forall A, list A -> list (list A);
                dealt : forall A (xs : list A), Permutation (concat (deal A xs)) xs }.

Definition add_all (ps : list float) : float := fold_left Coq.Floats.PrimFloat.add ps 0%float.
Definition block_sum (c : cut) (xs : list float) : float := add_all (map D.loop_sum (deal c _ xs)).
Definition block_dot (c : cut) (xs ws : list float) : float :=
  add_all (map (fun ps => D.dot_from 0 (map fst ps) (map snd ps)) (deal c _ (combine xs ws))).
Definition blocks (c : cut) : D.machine :=
  {| D.sum := block_sum c; D.dot := block_dot c; D.estimate := block_sum c; D.doubts _ := false |}.

Lemma add_all_tree {A} (f : A -> float) (leaf : A -> list (b64 * b64)) (bs : list A) :
  (forall b, exists t, bleaves t = leaf b /\ B (f b) = beval t) ->
  exists t, bleaves t = concat (map leaf bs) /\ B (add_all (map f bs)) = beval t.
Proof.
  intros H. unfold add_all.
  assert (G : forall bs acc t, B acc = beval t -> exists t',
    bleaves t' = bleaves t ++ concat (map leaf bs)
    /\ B (fold_left Coq.Floats.PrimFloat.add (map f bs) acc) = beval t').
  { clear bs. induction bs as [|b bs IH]; intros acc t E; simpl.
    - exists t. now rewrite app_nil_r.
    - destruct (H b) as (u & L & U). destruct (IH (acc + f b)%float (BAdd t u)) as (t' & L' & E').
      { simpl. now rewrite B_add, E, U. }
      exists t'. split; [|exact E']. rewrite L'. simpl. now rewrite L, app_assoc. }
  destruct (G bs 0%float BZero B_0) as (t & L & E). exists t. split; [exact L | exact E].
Qed.

Lemma concat_singles bs : concat (map singles bs) = singles (concat bs).
Proof. unfold singles. now rewrite concat_map. Qed.
Lemma pairs_combine xs : forall ws,
  pairs xs ws = map (fun p => (B (fst p), B (snd p))) (combine xs ws).
Proof.
  unfold pairs. induction xs as [|x xs IH]; intros [|w ws]; simpl; try easy. now rewrite IH.
Qed.
Lemma combine_split (ps : list (float * float)) : combine (map fst ps) (map snd ps) = ps.
Proof. induction ps as [|[x w] ps IH]; simpl; [easy | now rewrite IH]. Qed.

Theorem blocks_orderly c : orderly (blocks c).
Proof.
  assert (S : forall xs, exists t,
    Permutation (bleaves t) (singles xs) /\ B (block_sum c xs) = beval t).
  { intros xs. destruct (add_all_tree D.loop_sum singles (deal c _ xs)) as (t & L & E).
    - intros b. exists (sum_tree BZero b). rewrite sum_tree_leaves. split; [reflexivity|].
      apply sum_tree_val. exact B_0.
    - exists t. split; [|exact E]. rewrite L, concat_singles. apply Permutation_map, dealt. }
  split; intros xs.
  - destruct (S xs) as (t & P & E). exists t, []. split; [constructor|]. rewrite app_nil_r. auto.
  - intros ws. destruct (add_all_tree (fun ps => D.dot_from 0 (map fst ps) (map snd ps))
      (map (fun p => (B (fst p), B (snd p)))) (deal c _ (combine xs ws))) as (t & L & E).
    + intros ps. exists (dot_tree BZero (map fst ps) (map snd ps)).
      rewrite dot_tree_leaves, pairs_combine, combine_split. split; [reflexivity|].
      apply dot_tree_val. exact B_0.
    + exists t, []. split; [constructor|]. rewrite app_nil_r. split; [|exact E].
      rewrite L, <- concat_map, pairs_combine. apply Permutation_map, dealt.
  - destruct (S xs) as (t & P & E). exists t, []. split; [constructor|]. rewrite app_nil_r.
    split; [exact P|]. split; [|exact E]. rewrite (Permutation_length P). unfold singles.
    now rewrite map_length.
Qed.

(* Whatever the cut: the bits of attention over all keys at once. *)
Theorem merged_bits c c' conf q ks vs : good conf ->
  D.attend (blocks c) conf q ks vs = D.attend (blocks c') conf q ks vs.
Proof. intros G. apply (attend_same (blocks c) (blocks c')); auto using blocks_orderly. Qed.
Theorem merged_is_one_pass c conf q ks vs : good conf ->
  D.attend (blocks c) conf q ks vs = D.attend D.loops conf q ks vs.
Proof.
  intros G. apply (attend_same (blocks c) D.loops); auto using blocks_orderly, loops_orderly.
Qed.
(* And so the whole decoder's; Machines.v has a machine, and so a cut, of its own for each row. *)
Theorem merged_logits c m tokens : loaded m ->
  D.logits (blocks c) m tokens = D.logits D.loops m tokens.
Proof. intros L. apply logits_same; [apply blocks_orderly | exact L]. Qed.

(* The largest of the blocks' largest is the largest of all: no rounding is in it.  As values: the
   scores end in + 0, so that a zero among them has one sign. *)
Theorem largest_of_blocks bs : bs <> [] -> Forall (fun b => b <> [] /\ Forall fin b) bs ->
  V (D.largest (map D.largest bs)) = V (D.largest (concat bs)).
Proof.
  intros N F. rewrite Forall_forall in F.
  assert (L : forall b, In b bs ->
    In (D.largest b) b /\ forall x, In x b -> V x <= V (D.largest b)).
  { intros b I. destruct (F b I) as [Nb Fb]. now apply largest_val. }
  assert (N1 : map D.largest bs <> []) by (destruct bs; easy).
  assert (N2 : concat bs <> []).
  { destruct bs as [|b bs]; [easy|]. destruct (F b (or_introl eq_refl)) as [Nb _].
    destruct b; easy. }
  assert (F2 : Forall fin (concat bs)).
  { apply Forall_forall. intros x I. apply in_concat in I as (b & I & J).
    destruct (F b I) as [_ Fb]. rewrite Forall_forall in Fb. now apply Fb. }
  assert (F1 : Forall fin (map D.largest bs)).
  { apply Forall_map, Forall_forall. intros b I. destruct (F b I) as [_ Fb].
    rewrite Forall_forall in Fb. apply Fb, (L b I). }
  destruct (largest_val _ N1 F1) as [I1 M1], (largest_val _ N2 F2) as [I2 M2].
  apply Rle_antisym.
  - apply in_map_iff in I1 as (b & <- & I). apply M2, in_concat. exists b. split; [exact I|].
    apply (L b I).
  - apply in_concat in I2 as (b & I & J). eapply Rle_trans; [apply (L b I), J|].
    apply M1, in_map, I.
Qed.

Print Assumptions blocks_orderly.
Print Assumptions merged_bits.
Print Assumptions merged_is_one_pass.
Print Assumptions merged_logits.
Print Assumptions largest_of_blocks.
