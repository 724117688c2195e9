(* Exactness.v -- T7 (order), over the real numbers.

   Floating-point addition is not associative: in binary64, (2^53 + 1) + 1 is not 2^53 + (1 + 1).
   So the bits of an ordinary dot product depend on the order in which BLAS happens to add, and a
   K/V row computed in a batch need not equal the same row computed alone.

   minikv's `Exact` arithmetic removes the cause.  It keeps the numbers that meet in one sum on a
   common grid, the integer multiples of 2^u, and keeps the sum of their absolute values within
   2^53 * 2^u.  This file proves that no addition then rounds, so that EVERY order, blocking,
   number of threads, padding and use of fused multiply-add gives the true dot product.

   Here a binary64 number is its real value.  Binary64.v repeats the result for the data
   themselves: sign bits, the two zeros, overflow. *)
From Coq Require Import ZArith Reals List Permutation Lia Lra.
From Flocq Require Import Core.
Import ListNotations.
Open Scope R_scope.

(* Round to nearest, ties to even, to 53 bits and exponents down to 2^-1074: IEEE 754 binary64
   with nothing said about overflow. *)
Notation fexp64 := (FLT_exp (-1074) 53).
Definition rnd (x : R) : R := round radix2 fexp64 ZnearestE x.
Notation pow2 := (bpow radix2).            (* pow2 u is 2^u, also for u < 0 *)

(** * Numbers on a grid are not moved by rounding *)
Definition on_grid (u : Z) (x : R) : Prop := exists k : Z, x = IZR k * pow2 u.

Lemma int_format k : (Z.abs k <= 2^53)%Z -> forall u, (-1074 <= u)%Z ->
  generic_format radix2 fexp64 (IZR k * pow2 u).
Proof.
  intros H u Hu. destruct (Z.eq_dec (Z.abs k) (2^53)) as [E|E].
  - assert (B : generic_format radix2 fexp64 (IZR (2^53) * pow2 u)).
    { change (IZR (2^53)) with (pow2 53). rewrite <- bpow_plus. apply generic_format_bpow.
      unfold FLT_exp. lia. }
    destruct (Z.abs_eq_or_opp k) as [A|A]; rewrite A in E.
    + now rewrite E.
    + replace k with (- 2^53)%Z by lia. rewrite opp_IZR, Ropp_mult_distr_l_reverse.
      now apply generic_format_opp.
  - apply generic_format_FLT. exists (Float radix2 k u); simpl; [reflexivity | lia | lia].
Qed.

Lemma grid_bound u k : Rabs (IZR k * pow2 u) <= pow2 (53 + u) -> (Z.abs k <= 2^53)%Z.
Proof.
  intros H. rewrite Rabs_mult, (Rabs_pos_eq (pow2 u)), bpow_plus, <- abs_IZR in H
    by apply bpow_ge_0.
  apply le_IZR. change (IZR (2^53)) with (pow2 53). exact (Rmult_le_reg_r _ _ _ (bpow_gt_0 _ u) H).
Qed.

Lemma rnd_grid u x : (-1074 <= u)%Z -> on_grid u x -> Rabs x <= pow2 (53 + u) -> rnd x = x.
Proof.
  intros Hu [k ->] H. apply round_generic; [apply valid_rnd_N|].
  apply int_format; [now apply grid_bound in H | exact Hu].
Qed.

Lemma on_grid_0 u : on_grid u 0.
Proof. exists 0%Z. ring. Qed.
Lemma on_grid_plus u x y : on_grid u x -> on_grid u y -> on_grid u (x + y).
Proof. intros [j ->] [k ->]. exists (j + k)%Z. rewrite plus_IZR. ring. Qed.

(** * Sums and dot products *)
Definition sum (l : list R) : R := fold_right Rplus 0 l.
Definition sumabs (l : list R) : R := sum (map Rabs l).
Definition prods (l : list (R * R)) : list R := map (fun p => fst p * snd p) l.
Definition dot (l : list (R * R)) : R := sum (prods l).       (* the true dot product *)

Lemma sum_app l m : sum (l ++ m) = sum l + sum m.
Proof. induction l; simpl; lra. Qed.
Lemma sum_perm l m : Permutation l m -> sum l = sum m.
Proof. induction 1; simpl; lra. Qed.
Lemma sumabs_nonneg l : 0 <= sumabs l.
Proof. unfold sumabs. induction l as [|x l IH]; simpl; [lra|]. pose proof (Rabs_pos x). lra. Qed.
Lemma sum_le_sumabs l : Rabs (sum l) <= sumabs l.
Proof.
  unfold sumabs. induction l as [|x l IH]; simpl; [rewrite Rabs_R0; lra|].
  pose proof (Rabs_triang x (sum l)). lra.
Qed.
Lemma on_grid_sum u l : Forall (on_grid u) l -> on_grid u (sum l).
Proof. induction 1; simpl; [apply on_grid_0 | now apply on_grid_plus]. Qed.

(* The one hypothesis of T7: the terms lie on the grid, their absolute sum is within 2^53 steps. *)
Definition fits (u : Z) (l : list (R * R)) : Prop :=
  Forall (on_grid u) (prods l) /\ sumabs (prods l) <= pow2 (53 + u).

Lemma fits_perm u l m : Permutation l m -> fits u l -> fits u m.
Proof.
  intros P [G B]. assert (Q : Permutation (prods l) (prods m)) by apply Permutation_map, P.
  split; [exact (Permutation_Forall Q G)|]. unfold sumabs.
  now rewrite <- (sum_perm _ _ (Permutation_map Rabs Q)).
Qed.
Lemma fits_app u l m : fits u (l ++ m) -> fits u l /\ fits u m.
Proof.
  unfold fits, sumabs, prods. rewrite !map_app, sum_app, Forall_app. intros [[Gl Gm] B].
  pose proof (sumabs_nonneg (prods l)). pose proof (sumabs_nonneg (prods m)).
  unfold sumabs, prods in *. repeat split; auto; lra.
Qed.
Lemma fits_rnd u l : (-1074 <= u)%Z -> fits u l -> rnd (dot l) = dot l.
Proof.
  intros Hu [G B]. apply (rnd_grid u); [exact Hu | now apply on_grid_sum |].
  eapply Rle_trans; [apply sum_le_sumabs | exact B].
Qed.

(** * T7: one datatype for every order of adding
   Zero      an exact zero: the initial accumulator, or padding
   Num x     a number as it is stored (a plain sum has only these leaves)
   Mul x w   a rounded product
   Fma x w a a fused multiply-add into the partial result a
   Add l r   a rounded addition of two partial results *)
Inductive tree :=
  | Zero | Num (x : R) | Mul (x w : R) | Fma (x w : R) (acc : tree) | Add (l r : tree).

Fixpoint leaves (t : tree) : list (R * R) :=
  match t with
  | Zero => [] | Num x => [(x, 1)] | Mul x w => [(x, w)]
  | Fma x w a => (x, w) :: leaves a
  | Add l r => leaves l ++ leaves r
  end.

Fixpoint feval (t : tree) : R :=            (* what the machine computes *)
  match t with
  | Zero => 0 | Num x => x | Mul x w => rnd (x * w)
  | Fma x w a => rnd (x * w + feval a)
  | Add l r => rnd (feval l + feval r)
  end.

Lemma tree_exact u t : (-1074 <= u)%Z -> fits u (leaves t) -> feval t = dot (leaves t).
Proof.
  intros Hu. induction t as [|x|x w|x w a IH|l IHl r IHr]; cbn [leaves feval]; intros F.
  - reflexivity.
  - unfold dot; simpl; ring.
  - pose proof (fits_rnd u _ Hu F) as E. unfold dot in *; simpl in *. now rewrite Rplus_0_r in *.
  - rewrite IH by exact (proj2 (fits_app u [(x, w)] _ F)). exact (fits_rnd u _ Hu F).
  - pose proof (fits_rnd u _ Hu F) as E. apply fits_app in F as [Fl Fr].
    rewrite IHl, IHr by assumption. unfold dot, prods in *. now rewrite map_app, sum_app in *.
Qed.

(* Any association, any permutation, any number of zeros put in, fused or not: the true value. *)
Theorem dot_exact u l t : (-1074 <= u)%Z -> fits u l -> Permutation (leaves t) l -> feval t = dot l.
Proof.
  intros Hu F P. rewrite (tree_exact u t Hu) by exact (fits_perm u _ _ (Permutation_sym P) F).
  apply sum_perm, Permutation_map, P.
Qed.

Corollary order_independent u l t1 t2 : (-1074 <= u)%Z -> fits u l ->
  Permutation (leaves t1) l -> Permutation (leaves t2) l -> feval t1 = feval t2.
Proof. intros. now rewrite (dot_exact u l t1), (dot_exact u l t2). Qed.

(* Padding: terms that are exact zeros (a masked key, a batch filled up) change nothing. *)
Theorem padding_exact u l pad t : (-1074 <= u)%Z -> fits u l -> Forall (eq 0) (prods pad) ->
  Permutation (leaves t) (l ++ pad) -> feval t = dot l.
Proof.
  intros Hu F Z P.
  assert (Z0 : sum (prods pad) = 0 /\ sumabs (prods pad) = 0).
  { unfold sumabs. induction Z as [|x m <- _ [I J]]; simpl; [lra|]. rewrite Rabs_R0. lra. }
  assert (D : dot (l ++ pad) = dot l) by (unfold dot, prods in *; rewrite map_app, sum_app; lra).
  rewrite <- D. apply (dot_exact u); [exact Hu| |exact P]. destruct F as [G B]. split.
  - unfold prods. rewrite map_app. apply Forall_app. split; [exact G|].
    eapply Forall_impl; [|exact Z]. intros x <-. apply on_grid_0.
  - unfold sumabs, prods in *. rewrite !map_app, sum_app. lra.
Qed.

(* Chunks: add up each chunk in an order of its own, then the partial sums. *)
Definition chunked (ts : list tree) : tree := fold_left Add ts Zero.

Lemma chunked_leaves ts : leaves (chunked ts) = concat (map leaves ts).
Proof.
  unfold chunked. change (concat (map leaves ts)) with (leaves Zero ++ concat (map leaves ts)).
  generalize Zero. induction ts as [|t ts IH]; intros acc; simpl; [now rewrite app_nil_r|].
  rewrite IH. simpl. now rewrite app_assoc.
Qed.

Theorem chunks_exact u ts chunks : (-1074 <= u)%Z -> fits u (concat chunks) ->
  Forall2 (fun t chunk => Permutation (leaves t) chunk) ts chunks ->
  feval (chunked ts) = dot (concat chunks).
Proof.
  intros Hu F P. apply (dot_exact u); [exact Hu | exact F |]. rewrite chunked_leaves. clear F.
  induction P; simpl; [constructor | now apply Permutation_app].
Qed.

(* T12: a row whose terms lie on ranks. Each adds up its own in a tree of its own; the ranks' sums
   are then reduced in a tree of ranks. That is one tree over all terms, so that the split, the
   number of ranks and both kinds of order change nothing. *)
Inductive reduction := Rank (own : tree) | Join (l r : reduction).

Fixpoint reduced (r : reduction) : R :=
  match r with
  | Rank own => feval own
  | Join l r => rnd (reduced l + reduced r)
  end.

Fixpoint grafted (r : reduction) : tree :=
  match r with
  | Rank own => own
  | Join l r => Add (grafted l) (grafted r)
  end.

Lemma reduced_grafted r : reduced r = feval (grafted r).
Proof. induction r as [own|l IHl r IHr]; simpl; [reflexivity | now rewrite IHl, IHr]. Qed.

Theorem split_exact u l r : (-1074 <= u)%Z -> fits u l ->
  Permutation (leaves (grafted r)) l -> reduced r = dot l.
Proof. intros Hu F P. rewrite reduced_grafted. now apply (dot_exact u). Qed.

Corollary splits_agree u l r1 r2 : (-1074 <= u)%Z -> fits u l ->
  Permutation (leaves (grafted r1)) l -> Permutation (leaves (grafted r2)) l ->
  reduced r1 = reduced r2.
Proof. intros Hu F P1 P2. now rewrite (split_exact u l r1), (split_exact u l r2). Qed.

(* The usual loop `for x, w in row: acc += x * w` is one of the trees. *)
Definition loop (row : list (R * R)) : R :=
  fold_left (fun acc p => rnd (acc + rnd (fst p * snd p))) row 0.

Theorem loop_exact u l row : (-1074 <= u)%Z -> fits u l -> Permutation row l -> loop row = dot l.
Proof.
  intros Hu F P.
  assert (E : forall m acc, fold_left (fun a p => rnd (a + rnd (fst p * snd p))) m (feval acc)
    = feval (fold_left (fun a p => Add a (Mul (fst p) (snd p))) m acc)).
  { induction m as [|p m IH]; intros acc; [reflexivity|]. exact (IH (Add acc (Mul _ _))). }
  assert (L : forall m acc, leaves (fold_left (fun a p => Add a (Mul (fst p) (snd p))) m acc)
    = leaves acc ++ m).
  { induction m as [|[x w] m IH]; intros acc; simpl; [now rewrite app_nil_r|].
    rewrite IH. simpl. now rewrite <- app_assoc. }
  unfold loop. change 0 with (feval Zero) at 1. rewrite E.
  apply (dot_exact u); [exact Hu | exact F | now rewrite L].
Qed.

(** * T7's hypothesis in the forms that minikv checks *)
Lemma grid_mult u v x w : on_grid u x -> on_grid v w -> on_grid (u + v) (x * w).
Proof. intros [j ->] [k ->]. exists (j * k)%Z. rewrite mult_IZR, bpow_plus. ring. Qed.

(* A dot product: x on the grid 2^u, its absolute values at most 2^A steps in all; w on the grid
   2^v, each at most 2^B steps.  Integers are the case u = v = 0. *)
Theorem fits_l1 A B u v l : (A + B <= 53)%Z ->
  Forall (on_grid u) (map fst l) -> sumabs (map fst l) <= pow2 (A + u) ->
  Forall (fun w => on_grid v w /\ Rabs w <= pow2 (B + v)) (map snd l) -> fits (u + v) l.
Proof.
  intros AB X S W. rewrite Forall_map in X, W. split.
  - apply Forall_map. eapply Forall_impl; [|exact (Forall_and X W)].
    intros [x w] [Hx [Hw _]]. now apply grid_mult.
  - apply Rle_trans with (sumabs (map fst l) * pow2 (B + v)).
    + clear X S. unfold sumabs, prods. induction W as [|[x w] l [_ Hw] _ IH]; simpl in *; [lra|].
      rewrite Rabs_mult. pose proof (Rmult_le_compat_l _ _ _ (Rabs_pos x) Hw). lra.
    + apply Rle_trans with (pow2 (A + u) * pow2 (B + v)).
      * apply Rmult_le_compat_r; [apply bpow_ge_0 | exact S].
      * rewrite <- bpow_plus. apply bpow_le. lia.
Qed.

(* A dot product with a grid for each term (attention: the weight p of a token and its value x):
   p on 2^(u-e), x on 2^(v+e), so that their products share one grid. *)
Theorem fits_folded A B u v (l : list (Z * (R * R))) : (A + B <= 53)%Z ->
  Forall (fun '(e, (p, x)) =>
    on_grid (u - e) p /\ on_grid (v + e) x /\ Rabs x <= pow2 (B + v + e)) l ->
  sum (map (fun '(e, (p, _)) => Rabs p * pow2 e) l) <= pow2 (A + u) -> fits (u + v) (map snd l).
Proof.
  intros AB G S.
  set (m := map (fun '(e, (p, x)) => (p * pow2 e, x * pow2 (- e))) l).
  assert (One : forall e, pow2 e * pow2 (- e) = 1).
  { intros e. rewrite <- bpow_plus. now replace (e + - e)%Z with 0%Z by lia. }
  assert (M : prods (map snd l) = prods m).
  { unfold m, prods. rewrite !map_map. apply map_ext. intros (e & p & x). simpl.
    replace (p * pow2 e * (x * pow2 (- e))) with (p * x * (pow2 e * pow2 (- e))) by ring.
    rewrite One. ring. }
  unfold fits. rewrite M. apply (fits_l1 A B); [exact AB | | |].
  - unfold m. rewrite map_map, Forall_map. eapply Forall_impl; [|exact G].
    intros (e & p & x) ([k ->] & _). exists k. simpl. rewrite Rmult_assoc, <- bpow_plus.
    do 2 f_equal. lia.
  - unfold m, sumabs. rewrite !map_map. erewrite map_ext; [exact S|]. intros (e & p & x). simpl.
    now rewrite Rabs_mult, (Rabs_pos_eq (pow2 e)) by apply bpow_ge_0.
  - unfold m. rewrite map_map, Forall_map. eapply Forall_impl; [|exact G].
    intros (e & p & x) (_ & [k Hk] & B'). simpl. split.
    + exists k. rewrite Hk, Rmult_assoc, <- bpow_plus. do 2 f_equal. lia.
    + rewrite Rabs_mult, (Rabs_pos_eq (pow2 (- e))) by apply bpow_ge_0.
      replace (B + v)%Z with (B + v + e + - e)%Z by lia. rewrite (bpow_plus _ _ (- e)).
      apply Rmult_le_compat_r; [apply bpow_ge_0 | exact B'].
Qed.

(* A plain sum: at most 2^n numbers on the grid 2^u, each at most 2^A steps. *)
Theorem fits_count n A u xs : (n + A <= 53)%Z -> INR (length xs) <= pow2 n ->
  Forall (fun x => on_grid u x /\ Rabs x <= pow2 (A + u)) xs -> fits u (map (fun x => (x, 1)) xs).
Proof.
  intros HA N X.
  assert (P : prods (map (fun x => (x, 1)) xs) = xs).
  { unfold prods. rewrite map_map. rewrite <- (map_id xs) at 2.
    apply map_ext. intros x. simpl. ring. }
  split; rewrite P; [eapply Forall_impl; [|exact X]; now intros x [? _]|].
  apply Rle_trans with (INR (length xs) * pow2 (A + u)).
  - clear N P. unfold sumabs. induction X as [|x xs [_ Hx] _ IH]; [simpl; lra|].
    cbn [length map sum fold_right]. rewrite S_INR. unfold sum in IH. lra.
  - apply Rle_trans with (pow2 n * pow2 (A + u)).
    + apply Rmult_le_compat_r; [apply bpow_ge_0 | exact N].
    + rewrite <- bpow_plus. apply bpow_le. lia.
Qed.

(* Scaling an integer result back by a power of two rounds nothing either. *)
Theorem unscale_exact k u : (Z.abs k <= 2^53)%Z -> (-1074 <= u)%Z ->
  rnd (IZR k * pow2 u) = IZR k * pow2 u.
Proof. intros. apply round_generic; [apply valid_rnd_N | now apply int_format]. Qed.

Print Assumptions dot_exact.
Print Assumptions order_independent.
Print Assumptions padding_exact.
Print Assumptions chunks_exact.
Print Assumptions split_exact.
Print Assumptions splits_agree.
Print Assumptions loop_exact.
Print Assumptions fits_l1.
Print Assumptions fits_folded.
Print Assumptions fits_count.
Print Assumptions unscale_exact.
