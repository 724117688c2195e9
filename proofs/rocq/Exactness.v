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

(* ------------------------------------------------ numbers on a grid are not moved by rounding *)
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
  intros H. rewrite Rabs_mult, (Rabs_pos_eq (pow2 u)), bpow_plus, <- abs_IZR in H by apply bpow_ge_0.
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

(* ------------------------------------------------------------------------- sums and dot products *)
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

(* The one hypothesis of T7: the terms lie on the grid and their absolute sum is within 2^53 steps. *)
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

(* ------------------------------------------------------- T7: one datatype for every order of adding
   Zero      an exact zero: the initial accumulator, or padding
   Num x     a number as it is stored (a plain sum has only these leaves)
   Mul x w   a rounded product
   Fma x w a a fused multiply-add into the partial result a
   Add l r   a rounded addition of two partial results *)
Inductive tree := Zero | Num (x : R) | Mul (x w : R) | Fma (x w : R) (acc : tree) | Add (l r : tree).

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
  unfold loop. change 0 with (feval Zero) at 1. rewrite E. apply (dot_exact u); [exact Hu | exact F |].
  now rewrite L.
Qed.

(* ---------------------------------------------- T7's hypothesis in the form that a kernel can check
   Floats n * 2^a against floats m * 2^b, with integers n and m; plain integers are a = b = 0. *)
Definition scaled (a b : Z) (p : Z * Z) : R * R := (IZR (fst p) * pow2 a, IZR (snd p) * pow2 b).

Definition absdot (l : list (Z * Z)) : Z := fold_right (fun p s => Z.abs (fst p * snd p) + s)%Z 0%Z l.
Definition l1 (l : list (Z * Z)) : Z := fold_right (fun p s => Z.abs (fst p) + s)%Z 0%Z l.

Lemma scaled_prod a b p : fst (scaled a b p) * snd (scaled a b p) = IZR (fst p * snd p) * pow2 (a + b).
Proof. simpl. rewrite mult_IZR, bpow_plus. ring. Qed.

Theorem fits_scaled a b l : (absdot l <= 2^53)%Z -> fits (a + b) (map (scaled a b) l).
Proof.
  intros H. split.
  - apply Forall_map, Forall_map, Forall_forall. intros p _. rewrite scaled_prod. now eexists.
  - replace (sumabs _) with (IZR (absdot l) * pow2 (a + b)).
    + rewrite (bpow_plus _ 53). apply Rmult_le_compat_r; [apply bpow_ge_0|].
      change (pow2 53) with (IZR (2^53)). now apply IZR_le.
    + clear H. unfold sumabs, prods.
      induction l as [|p l IH]; cbn [map absdot fold_right sum]; [ring|].
      unfold absdot in *. rewrite scaled_prod, Rabs_mult, (Rabs_pos_eq (pow2 (a + b))), <- abs_IZR, plus_IZR
        by apply bpow_ge_0. unfold sum in *. rewrite <- IH. ring.
Qed.

(* What `Exact.linear` checks: an L1-bounded row against weights of B bits. *)
Theorem fits_l1 B a b l : (0 <= B)%Z -> Forall (fun p => Z.abs (snd p) <= 2^B)%Z l ->
  (l1 l * 2^B <= 2^53)%Z -> fits (a + b) (map (scaled a b) l).
Proof.
  intros HB W H. apply fits_scaled. eapply Z.le_trans; [|exact H]. clear H.
  induction W as [|p l Hp _ IH]; cbn [absdot l1 fold_right]; [lia|].
  unfold absdot, l1 in *. rewrite Z.abs_mul. pose proof (Z.abs_nonneg (fst p)). nia.
Qed.

(* The coarser one: n terms, numbers of A and of B bits. *)
Theorem fits_bits A B a b l : (0 <= A)%Z -> (0 <= B)%Z ->
  Forall (fun p => Z.abs (fst p) <= 2^A /\ Z.abs (snd p) <= 2^B)%Z l ->
  (Z.of_nat (length l) * 2^(A + B) <= 2^53)%Z -> fits (a + b) (map (scaled a b) l).
Proof.
  intros HA HB F H. apply (fits_l1 B); [exact HB| |].
  - eapply Forall_impl; [|exact F]. now intros p [_ ?].
  - eapply Z.le_trans; [|exact H]. rewrite Z.pow_add_r, Z.mul_assoc by assumption.
    apply Z.mul_le_mono_nonneg_r; [lia|]. clear H.
    induction F as [|p l [Hp _] _ IH]; cbn [l1 fold_right length]; [lia|]. unfold l1 in *. lia.
Qed.

(* Scaling an integer result back by a power of two rounds nothing either. *)
Theorem unscale_exact k u : (Z.abs k <= 2^53)%Z -> (-1074 <= u)%Z -> rnd (IZR k * pow2 u) = IZR k * pow2 u.
Proof. intros. apply round_generic; [apply valid_rnd_N | now apply int_format]. Qed.

Print Assumptions dot_exact.
Print Assumptions order_independent.
Print Assumptions padding_exact.
Print Assumptions chunks_exact.
Print Assumptions loop_exact.
Print Assumptions fits_scaled.
Print Assumptions fits_l1.
Print Assumptions fits_bits.
Print Assumptions unscale_exact.
