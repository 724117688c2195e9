(* Merge.v -- A1 (merge), over the real numbers: attention over parts of the keys, merged in any
   order and any tree, is attention over all of them.  What is kept of a part, its largest score,
   its denominator and its weighted sum, is a commutative monoid.  Rounding is not part of this:
   MergeBits.v says what of it is true in bits. *)
From Coq Require Import Reals List Permutation Lra.
From Coq Require FunctionalExtensionality.
From Minikv Require Import Bounded.
Import ListNotations.
Open Scope R_scope.

(* Of some keys, each a score and a value: the largest score m, the sum of exp(score - m), and the
   sum of exp(score - m) * value; None for no key at all (m = -inf).  A masked key is one that is
   not there. *)
Definition part : Type := option (R * R * vector).
Definition one (key : R * vector) : part := Some (fst key, 1, snd key).
Definition merge (a b : part) : part :=
  match a, b with
  | None, x | x, None => x
  | Some (m, s, z), Some (m', s', z') =>
      let n := Rmax m m' in
      Some (n, s * exp (m - n) + s' * exp (m' - n),
            fun j => z j * exp (m - n) + z' j * exp (m' - n))
  end.

(** * A1: a commutative monoid *)
Theorem merge_none_l a : merge None a = a.
Proof. reflexivity. Qed.
Theorem merge_none_r a : merge a None = a.
Proof. now destruct a as [[[m s] z]|]. Qed.

Lemma part_eq m s z m' s' z' : m = m' -> s = s' -> (forall j, z j = z' j) ->
  Some (m, s, z) = Some (m', s', z') :> part.
Proof.
  intros -> -> H. do 2 f_equal. now apply FunctionalExtensionality.functional_extensionality.
Qed.

Theorem merge_comm a b : merge a b = merge b a.
Proof.
  destruct a as [[[m s] z]|], b as [[[m' s'] z']|]; try reflexivity. simpl.
  rewrite (Rmax_comm m' m). apply part_eq; [reflexivity | ring | intros; ring].
Qed.

Lemma rescale m n k : exp (m - n) * exp (n - k) = exp (m - k).
Proof. rewrite <- exp_plus. f_equal. ring. Qed.

Theorem merge_assoc a b c : merge (merge a b) c = merge a (merge b c).
Proof.
  destruct a as [[[m s] z]|], b as [[[m' s'] z']|], c as [[[m'' s''] z'']|]; try reflexivity.
  simpl. rewrite (Rmax_assoc m m' m''). set (k := Rmax (Rmax m m') m'').
  apply part_eq; [reflexivity | |intros j];
    rewrite !Rmult_plus_distr_r, !Rmult_assoc, !rescale; ring.
Qed.

(** * A1: any tree, over any partition *)
Inductive tree := Nothing | Key (k : R * vector) | Both (l r : tree).
Fixpoint keys (t : tree) : list (R * vector) :=
  match t with Nothing => [] | Key k => [k] | Both l r => keys l ++ keys r end.
Fixpoint eval (t : tree) : part :=
  match t with Nothing => None | Key k => one k | Both l r => merge (eval l) (eval r) end.
Definition in_turn (ks : list (R * vector)) : part :=
  fold_right (fun k a => merge (one k) a) None ks.

Lemma in_turn_app ks ls : in_turn (ks ++ ls) = merge (in_turn ks) (in_turn ls).
Proof. induction ks as [|k ks IH]; [reflexivity|]. cbn [in_turn fold_right app] in *.
  unfold in_turn in *. cbn [fold_right app]. now rewrite IH, merge_assoc. Qed.
Lemma eval_in_turn t : eval t = in_turn (keys t).
Proof.
  induction t as [|k|l IHl r IHr]; cbn [eval keys]; [reflexivity | now rewrite <- merge_none_r |].
  now rewrite in_turn_app, IHl, IHr.
Qed.
Lemma in_turn_perm ks ls : Permutation ks ls -> in_turn ks = in_turn ls.
Proof.
  induction 1 as [|k ks ls _ IH|k l ks|]; unfold in_turn in *; cbn [fold_right]; try congruence.
  now rewrite <- !merge_assoc, (merge_comm (one l)).
Qed.

Theorem any_tree t t' : Permutation (keys t) (keys t') -> eval t = eval t'.
Proof. intros P. rewrite !eval_in_turn. now apply in_turn_perm. Qed.

(** * A1: its end is attention over all keys *)
Definition finish (a : part) : vector :=
  match a with None => fun _ => 0 | Some (_, s, z) => fun j => z j / s end.
Definition total (ks : list (R * vector)) : R := sum (map (fun k => exp (fst k)) ks).
Definition attention (ks : list (R * vector)) : vector :=
  attend (map (fun k => exp (fst k) / total ks) ks) (map snd ks).

(* Whatever m is: m, s and z stand for the sums of exp(score) and of exp(score) * value. *)
Definition stands (a : part) (ks : list (R * vector)) : Prop :=
  match a with
  | None => ks = []
  | Some (m, s, z) => ks <> [] /\ exp m * s = total ks
      /\ forall j, exp m * z j = attend (map (fun k => exp (fst k)) ks) (map snd ks) j
  end.
Lemma attend_app ws : forall vs ws' vs' j, length ws = length vs ->
  attend (ws ++ ws') (vs ++ vs') j = attend ws vs j + attend ws' vs' j.
Proof.
  induction ws as [|w ws IH]; intros [|v vs] ws' vs' j N; try easy; simpl; [ring|].
  rewrite IH by (simpl in N; congruence). ring.
Qed.
Lemma total_app ks ls : total (ks ++ ls) = total ks + total ls.
Proof. unfold total, sum. induction ks as [|k ks IH]; simpl; [ring|]. rewrite IH. ring. Qed.
Lemma stands_merge a b ks ls : stands a ks -> stands b ls -> stands (merge a b) (ks ++ ls).
Proof.
  destruct a as [[[m s] z]|], b as [[[m' s'] z']|]; simpl; intros A B; subst; simpl; auto;
    [| rewrite app_nil_r; exact A].
  destruct A as (N & S & Z), B as (N' & S' & Z'). set (n := Rmax m m').
  assert (X : forall x, exp n * exp (x - n) = exp x)
    by (intros; rewrite <- exp_plus; f_equal; ring).
  split; [destruct ks; easy|]. split.
  - rewrite total_app, <- S, <- S', <- (X m), <- (X m'). ring.
  - intros j. rewrite !map_app, attend_app by now rewrite !map_length.
    rewrite <- Z, <- Z', <- (X m), <- (X m'). ring.
Qed.
Lemma stands_eval t : stands (eval t) (keys t).
Proof.
  induction t as [|k|l IHl r IHr]; simpl; [reflexivity | | now apply stands_merge].
  unfold total, sum. simpl. split; [easy|]. split; [ring | intros; ring].
Qed.

Lemma attend_scaled c ks : forall j,
  attend (map (fun k : R * vector => exp (fst k) / c) ks) (map snd ks) j
  = attend (map (fun k => exp (fst k)) ks) (map snd ks) j / c.
Proof.
  induction ks as [|k ks IH]; intros j; simpl; [unfold Rdiv; ring|].
  rewrite IH. unfold Rdiv. ring.
Qed.
Lemma total_pos ks : ks <> [] -> 0 < total ks.
Proof.
  intros N. destruct ks as [|k ks]; [easy|]. clear N. unfold total, sum. revert k.
  induction ks as [|l ks IH]; intros k; simpl in *; pose proof (exp_pos (fst k)); [lra|].
  pose proof (IH l). lra.
Qed.

Theorem merged_is_attention t j : finish (eval t) j = attention (keys t) j.
Proof.
  pose proof (stands_eval t) as H. destruct (eval t) as [[[m s] z]|]; simpl in *.
  - destruct H as (N & S & Z). unfold attention.
    rewrite attend_scaled, <- Z, <- S. pose proof (exp_pos m). pose proof (total_pos _ N).
    assert (s <> 0) by (intros ->; lra). field. split; lra.
  - now rewrite H.
Qed.

(* Blocks with an order of their own, their parts merged in any tree: attention over the whole, in
   the whole's own order. *)
Corollary any_partition t ks j : Permutation (keys t) ks -> finish (eval t) j = attention ks j.
Proof.
  intros P. set (whole := fold_right (fun k t => Both (Key k) t) Nothing ks).
  assert (K : keys whole = ks).
  { unfold whole. clear. induction ks as [|k ks IH]; simpl; [easy|]. now rewrite IH. }
  rewrite (any_tree t whole) by now rewrite K. rewrite merged_is_attention, K. reflexivity.
Qed.

(** * Equal keys are one key, whose score is higher by the logarithm of their number *)
Theorem duplicates_merge n x v j : finish (eval (fold_right (fun k t => Both (Key k) t) Nothing
    (repeat (x, v) (S n)))) j = v j
  /\ stands (one (x + ln (INR (S n)), v)) (repeat (x, v) (S n)).
Proof.
  assert (P : 0 < INR (S n)) by (apply lt_0_INR; apply Nat.lt_0_succ).
  assert (T : forall m, total (repeat (x, v) m) = INR m * exp x /\
    forall i, attend (map (fun k => exp (fst k)) (repeat (x, v) m)) (map snd (repeat (x, v) m)) i
      = INR m * exp x * v i).
  { induction m as [|m [IH IH']]; [unfold total, sum; simpl; split; intros; ring|].
    rewrite S_INR. cbn [repeat map]. split.
    - unfold total, sum in *. cbn [map fold_right fst]. rewrite IH. ring.
    - intros i. cbn [attend fst snd]. rewrite IH'. ring. }
  destruct (T (S n)) as [T1 T2]. split.
  - rewrite (any_partition _ (repeat (x, v) (S n))).
    + unfold attention. rewrite attend_scaled, T2, T1.
      pose proof (exp_pos x). field. split; lra.
    + generalize (repeat (x, v) (S n)). intros ks. induction ks as [|k ks IH]; simpl;
        [reflexivity | now apply perm_skip].
  - cbn [stands one fst snd]. rewrite exp_plus, exp_ln by exact P. split; [easy|].
    split; [rewrite T1; ring | intros i; rewrite T2; ring].
Qed.

(* Without the rescaling it is not attention: two keys, of scores 0 and ln 2. *)
Definition unscaled (a b : part) : part :=
  match a, b with
  | None, x | x, None => x
  | Some (m, s, z), Some (m', s', z') => Some (Rmax m m', s + s', fun j => z j + z' j)
  end.
Example unscaled_is_not_attention :
  let a := (0, fun _ : nat => 0) in let b := (ln 2, fun _ => 1) in
  finish (unscaled (one a) (one b)) 0%nat = 1 / 2 /\ attention [a; b] 0%nat = 2 / 3.
Proof.
  unfold attention, total, sum. simpl. rewrite exp_0, exp_ln by lra. split; field.
Qed.

Print Assumptions merge_none_l.
Print Assumptions merge_none_r.
Print Assumptions merge_comm.
Print Assumptions merge_assoc.
Print Assumptions any_tree.
Print Assumptions merged_is_attention.
Print Assumptions any_partition.
Print Assumptions duplicates_merge.
Print Assumptions unscaled_is_not_attention.
