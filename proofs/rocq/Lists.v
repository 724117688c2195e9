(* Lists.v -- a list mapped with the position of each element: what the decoders of Markov.v and
   Decoder.v are written with.  Rests on nothing. *)
From Coq Require Import List Lia ZArith.
Import ListNotations.

(* map, with the position: k for the first element *)
Fixpoint mapi_from {A B} (k : nat) (f : nat -> A -> B) (l : list A) : list B :=
  match l with [] => [] | x :: l => f k x :: mapi_from (S k) f l end.
Notation mapi := (mapi_from 0).

Lemma mapi_app {A B} (f : nat -> A -> B) l m : forall k,
  mapi_from k f (l ++ m) = mapi_from k f l ++ mapi_from (k + length l) f m.
Proof.
  induction l as [|x l IH]; intros k; simpl; [now rewrite Nat.add_0_r|].
  now rewrite IH, Nat.add_succ_r.
Qed.
Lemma mapi_length {A B} (f : nat -> A -> B) l : forall k, length (mapi_from k f l) = length l.
Proof. induction l; simpl; congruence. Qed.
Lemma mapi_ext {A B} (f g : nat -> A -> B) l : forall k,
  (forall i x, i < k + length l -> f i x = g i x) -> mapi_from k f l = mapi_from k g l.
Proof.
  induction l as [|x l IH]; intros k H; simpl in *; [reflexivity|]. rewrite H by lia. f_equal.
  apply IH. intros i y Hi. apply H. lia.
Qed.
Lemma mapi_nth {A B} (f : nat -> A -> B) l : forall k p,
  nth_error (mapi_from k f l) p = option_map (f (k + p)) (nth_error l p).
Proof.
  induction l as [|x l IH]; intros k [|p]; simpl; try reflexivity.
  - now rewrite Nat.add_0_r.
  - now rewrite IH, Nat.add_succ_r.
Qed.
Lemma mapi_firstn {A B} (f : nat -> A -> B) l : forall k n,
  firstn n (mapi_from k f l) = mapi_from k f (firstn n l).
Proof. induction l; intros k [|n]; simpl; congruence. Qed.
Lemma nth_firstn {A} (l : list A) : forall n s, s < n -> nth_error (firstn n l) s = nth_error l s.
Proof. induction l; intros [|n] [|s] H; simpl; try lia; auto. apply IHl. lia. Qed.
Lemma same_list {A} (l : list A) : forall l', (forall s, nth_error l s = nth_error l' s) -> l = l'.
Proof.
  induction l as [|x l IH]; intros [|y l'] H;
    [reflexivity | now specialize (H O) | now specialize (H O) |].
  pose proof (H O) as E. injection E as <-. f_equal. apply IH. intros s. exact (H (S s)).
Qed.
Lemma nth_skipn {A} n : forall (l : list A) s, nth_error (skipn n l) s = nth_error l (n + s).
Proof. induction n; intros [|x l] s; simpl; auto. now destruct s. Qed.
Lemma skipn_skipn {A} n m (l : list A) : skipn n (skipn m l) = skipn (m + n) l.
Proof. apply same_list. intros s. rewrite !nth_skipn. f_equal. lia. Qed.
Lemma nth_beyond {A} (l : list A) n : length l <= n -> nth_error l n = None.
Proof. apply nth_error_None. Qed.
