(* Agree.v -- a list that stands for another from a position on: what the caches of Residual.v hold
   of what the full cache holds.  Rests on nothing. *)
From Coq Require Import List Arith Lia.
From Minikv Require Import Lists.
Import ListNotations.

(* xs is ys without its first f, where only what lies from a on is as in ys. *)
Definition agree {A} (a f : nat) (xs ys : list A) : Prop :=
  length xs = length ys - f /\ forall i, a <= i -> f <= i -> nth_error xs (i - f) = nth_error ys i.
Lemma agree_skipn {A} a f (ys : list A) : agree a f (skipn f ys) ys.
Proof.
  split; [apply skipn_length|]. intros i _ F. rewrite nth_skipn. f_equal. lia.
Qed.
Lemma agree_le {A} a b f (xs ys : list A) : a <= b -> agree a f xs ys -> agree b f xs ys.
Proof. intros L [N H]. split; [exact N|]. intros i B. apply H. lia. Qed.
Lemma agree_all {A} (xs ys : list A) : agree 0 0 xs ys -> xs = ys.
Proof.
  intros [_ H]. apply same_list. intros s. rewrite <- H by lia. f_equal. lia.
Qed.
Lemma firstn_beyond {A} n (l : list A) s : n <= s -> nth_error (firstn n l) s = None.
Proof. intros L. apply nth_beyond. rewrite firstn_length. lia. Qed.
Lemma agree_firstn {A} a f n (xs ys : list A) : n <= length ys -> agree a f xs ys ->
  agree a (Nat.min f n) (firstn (n - f) xs) (firstn n ys).
Proof.
  intros L [N H]. split; [rewrite !firstn_length; lia|]. intros i B F.
  destruct (Nat.le_gt_cases n i) as [G | G].
  - rewrite (firstn_beyond n) by exact G. apply firstn_beyond. lia.
  - replace (Nat.min f n) with f by lia. rewrite !nth_firstn by lia. apply H; lia.
Qed.
Lemma mapi_ext_from {A B} (f g : nat -> A -> B) l : forall k,
  (forall i x, k <= i < k + length l -> f i x = g i x) -> mapi_from k f l = mapi_from k g l.
Proof.
  induction l as [|x l IH]; intros k H; cbn [mapi_from]; [reflexivity|].
  rewrite H by (cbn [length]; lia). f_equal. apply IH. intros i y I. apply H. cbn [length]. lia.
Qed.
Lemma skipn_mapi {A B} (f : nat -> A -> B) n : forall l k,
  skipn n (mapi_from k f l) = mapi_from (k + n) f (skipn n l).
Proof.
  induction n as [|n IH]; intros [|x l] k; cbn [skipn mapi_from]; try reflexivity.
  - now rewrite Nat.add_0_r.
  - rewrite IH. f_equal. lia.
Qed.
