(* Elementary.v -- how far the polynomials of arithmetic/elementary.py are from the functions that
   they stand for: the error of the method, for real numbers, with the very coefficients of
   Decoder.v.  What the roundings of evaluating them add is not here; the tests measure the two
   together, against mpmath.

   It needs coq-interval, whose `interval` bounds a real expression over a range by computing with
   intervals of numbers made of machine integers; it rests on Coq's axioms about these. *)
From Coq Require Import Reals List Lra Floats.
From Flocq Require Import Core BinarySingleNaN.
From Interval Require Import Tactic.
From Minikv Require Import Binary64 Values.
From Minikv Require Decoder.
Import ListNotations.
Open Scope R_scope.

Definition series (cs : list R) (s : R) : R := fold_left (fun sum c => (sum + c) * s) cs 0.

(** * exp: f = 256 r is what is left of 256 x beside an integer *)
Definition exp_coefficients : list float :=
  [0x1.5555555555555p-37; 0x1.55555aaaaaaaap-27; 0x1p-17; 0x1.ffffffffffeabp-9]%float.
Ltac literals :=
  unfold exp_coefficients, D.sin_series, D.cos_series, map;
  repeat (apply f_equal2; [value; simpl; lra|]); reflexivity.
Lemma exp_values : map V exp_coefficients =
  [6004799503160661 / 2 ^ 89; 3002400467408213 / 2 ^ 78; 1 / 2 ^ 17;
   9007199254740651 / 2 ^ 61].
Proof. literals. Qed.
Theorem exp_method f : -1 / 2 <= f <= 1 / 2 ->
  Rabs (series (map V exp_coefficients) f - (exp (f / 256) - 1)) <= 9 / 16 / 2 ^ 55.
Proof.
  intros H. rewrite exp_values. unfold series, fold_left.
  interval with (i_bisect f, i_taylor f, i_degree 8, i_prec 90).
Qed.

(** * sin and cos: r is what is left of x beside a quarter turn, at most pi/4 *)
Lemma sin_values : map V D.sin_series =
  [3563945475987109 / 2 ^ 100; -7573384136472607 / 2 ^ 93; 6212541674450185 / 2 ^ 85;
   -1892883791434041 / 2 ^ 76; 1626697008263629 / 2 ^ 69; -3660068268593165 / 2 ^ 64;
   4803839602528529 / 2 ^ 59; -6004799503160661 / 2 ^ 55].
Proof. literals. Qed.
Theorem sin_method r : -(7855 / 10000) <= r <= 7855 / 10000 ->
  Rabs (series (map V D.sin_series) (r * r) * r + r - sin r) <= 1 / 2 ^ 57.
Proof.
  intros H. rewrite sin_values. unfold series, fold_left.
  interval with (i_bisect r, i_taylor r, i_degree 22, i_prec 110).
Qed.
Lemma cos_values : map V D.cos_series =
  [-6335903068421527 / 2 ^ 105; 7573384136472607 / 2 ^ 97; -7100047627943069 / 2 ^ 89;
   630961263811347 / 2 ^ 78; -1301357606610903 / 2 ^ 72; 3660068268593165 / 2 ^ 67;
   -6405119470038039 / 2 ^ 62; 6004799503160661 / 2 ^ 57].
Proof. literals. Qed.
Theorem cos_method r : -(7855 / 10000) <= r <= 7855 / 10000 ->
  Rabs ((series (map V D.cos_series) (r * r) - 1 / 2) * (r * r) + 1 - cos r) <= 1 / 2 ^ 58.
Proof.
  intros H. rewrite cos_values. unfold series, fold_left.
  interval with (i_bisect r, i_taylor r, i_degree 22, i_prec 110).
Qed.

Print Assumptions exp_method.
Print Assumptions sin_method.
Print Assumptions cos_method.
