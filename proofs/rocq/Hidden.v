(* Hidden.v -- lists of keys, some of them hidden by a mask: what is zero at each hidden key changes
   neither a sum, nor a largest number, nor the grid. *)
From Coq Require Import ZArith Reals List Permutation Lia Lra Bool Floats.
From Flocq Require Import Core BinarySingleNaN PrimFloat.
From Minikv Require Import Exactness Grids Binary64 Values Machine Total GridOrder Narrow Rows
  Linear Attend.
From Minikv Require Decoder.
Import ListNotations.
Open Scope R_scope.
#[local] Existing Instances Binary64.Hprec Binary64.Hmax.
#[local] Instance valid_exp : Valid_exp fexp64 := FLT_exp_valid (-1074) 53.
#[local] Opaque one.

Record item := { hidden : bool; key : list float; val : list float }.
Definition seen (it : list item) : list item := filter (fun i => negb (hidden i)) it.

Lemma columns_as n : exists fs : list (list float -> float),
  (forall f, In f fs -> forall v, In (f v) v \/ f v = 0%float) /\
  forall vs, D.columns n vs = map (fun f => map f vs) fs.
Proof.
  induction n as [|n (fs & H & E)]; [exists []; now split|].
  exists (hd 0%float :: map (fun f v => f (tl v)) fs). split.
  - intros f [<- | I] v; [destruct v; [now right | left; now left]|].
    apply in_map_iff in I as (f0 & <- & I). destruct v as [|x v]; simpl.
    + destruct (H f0 I []) as [[] | ?]; now right.
    + destruct (H f0 I v) as [Q | Q]; [left; now right | now right].
  - intros vs. simpl. rewrite E, map_map. f_equal. apply map_ext. intros f. now rewrite map_map.
Qed.
Lemma bdot_map (a b : item -> float) l :
  bdot (pairs (map a l) (map b l)) = sum (map (fun i => V (a i) * V (b i)) l).
Proof.
  unfold bdot, dot. f_equal. unfold prods, pairs.
  induction l as [|i l IH]; [reflexivity|]. cbn [map combine]. rewrite IH. reflexivity.
Qed.
Lemma combine_map {A B C} (a : A -> B) (b : A ->
  C) l : combine (map a l) (map b l) = map (fun i => (a i, b i)) l.
Proof. induction l; simpl; congruence. Qed.

(** * Lists with hidden items that are zero *)
Lemma map2_diag {A B C E} (f : A -> B -> C) (a : E -> A) (b : E -> B) l :
  D.map2 f (map a l) (map b l) = map (fun i => f (a i) (b i)) l.
Proof. induction l; simpl; congruence. Qed.
Lemma map2_self {A C E} (f : A -> E -> C) (a : E ->
  A) l : D.map2 f (map a l) l = map (fun i => f (a i) i) l.
Proof. induction l; simpl; congruence. Qed.
Lemma seen_in it i : In i (seen it) -> In i it /\ hidden i = false.
Proof. unfold seen. rewrite filter_In. intros [I H]. split; [exact I|]. now destruct (hidden i).
Qed.
Lemma seen_length it : (length (seen it) <= length it)%nat.
Proof. unfold seen. induction it as [|i it IH]; simpl; [lia|]. destruct (hidden i); simpl; lia. Qed.
Lemma sum_seen (f : item -> R) it : (forall i, In i it -> hidden i = true -> f i = 0) ->
  sum (map f it) = sum (map f (seen it)).
Proof.
  unfold seen. induction it as [|i it IH]; intros H; simpl; [reflexivity|].
  pose proof (IH (fun j J => H j (or_intror J))) as E.
  destruct (hidden i) eqn:Hi; simpl; rewrite E; [|reflexivity].
  rewrite (H i (or_introl eq_refl) Hi). lra.
Qed.
Lemma forallb_seen (f : item -> bool) it : (forall i, In i it -> hidden i = true -> f i = true) ->
  forallb f it = forallb f (seen it).
Proof.
  unfold seen. induction it as [|i it IH]; intros H; simpl; [reflexivity|].
  pose proof (IH (fun j J => H j (or_intror J))) as E.
  destruct (hidden i) eqn:Hi; simpl; rewrite E; [|reflexivity].
  now rewrite (H i (or_introl eq_refl) Hi).
Qed.
Lemma forallb_map {A B} (f : B -> bool) (a : A ->
  B) l : forallb f (map a l) = forallb (fun i => f (a i)) l.
Proof. induction l; simpl; congruence. Qed.

Lemma below_infinity m : (m <? neg_infinity)%float = false.
Proof.
  rewrite ltb_spec. change (Prim2SF neg_infinity) with (S754_infinity true).
  now destruct (Prim2SF m) as [?|[]| |[] ? ?].
Qed.
Lemma largest_seen (f : item -> float) it : (forall i, In i it -> hidden i = true ->
  f i = neg_infinity) ->
  D.largest (map f it) = D.largest (map f (seen it)).
Proof.
  intros H. unfold D.largest. set (step := fun m x : float => if (m <? x)%float then x else m).
  enough (E : forall m, fold_left step (map f it) m = fold_left step (map f (seen it)) m) by
    apply E.
  unfold seen. induction it as [|i it IH]; intros m; simpl; [reflexivity|].
  pose proof (IH (fun j J => H j (or_intror J))) as IH'.
  destruct (hidden i) eqn:Hi; simpl; [|apply IH'].
  rewrite (H i (or_introl eq_refl) Hi). unfold step at 2. rewrite below_infinity. apply IH'.
Qed.
Lemma minus_finite m : fin m -> (neg_infinity - m)%float = neg_infinity.
Proof.
  intros Fm. apply FloatAxioms.Prim2SF_inj. rewrite sub_spec.
  change (Prim2SF neg_infinity) with (S754_infinity true).
  unfold fin, B in Fm. rewrite <- (B2SF_Prim2B m). now destruct (Prim2B m) as [?|?| |? ? ? ?].
Qed.

Section Grid.
Variable M : D.machine.
Hypothesis O : orderly M.

(** * The grid does not see zeros *)
Definition nil (x : float) : Prop := fin x /\ V x = 0.
Lemma grid_seen bits s (f : item -> float) it : (29 <= bits <= 50)%Z -> fin s ->
  V s = Grids.scale bits -> plain s ->
  seen it <> [] -> (forall i, In i it -> hidden i = true -> nil (f i)) ->
  Forall moderate (map f it) -> short it -> D.grid M s (map f it) = D.grid M s (map f (seen it)).
Proof.
  intros Hb Fs Vs Pl Ne Hid Mo K.
  assert (Mo' : Forall moderate (map f (seen it))).
  { apply Forall_map, Forall_forall. intros i I. apply (proj1 (Forall_forall _ _) Mo).
    apply in_map. now apply seen_in. }
  assert (K1 : short (map f it)) by (unfold short; rewrite map_length; exact K).
  assert (K2 : short (map f (seen it))).
  { unfold short. rewrite map_length. eapply Rle_trans; [apply le_INR, seen_length | exact K]. }
  assert (Ne1 : map f it <> []) by (destruct it; [now destruct Ne | easy]).
  assert (Ne2 : map f (seen it) <> []) by (destruct (seen it); easy).
  destruct (zeros_or (map f (seen it))) as [Z | Nz].
  { rewrite !grid_zeros; auto using moderate_fin. intros x I. apply in_map_iff in I as (i & <- & I).
    destruct (hidden i) eqn:Hi; [now apply Hid|]. apply Z. apply in_map. unfold seen.
    rewrite filter_In. now rewrite Hi. }
  assert (Nz1 : exists x, In x (map f it) /\ V x <> 0).
  { destruct Nz as (x & I & N). exists x. split; [|exact N]. apply in_map_iff in I as (i & <- & I).
    apply in_map. now apply seen_in. }
  destruct (grid_val M bits s _ O Hb Fs Vs Mo Nz1 K1) as (u & Vu & Eu & Fu & _).
  destruct (grid_val M bits s _ O Hb Fs Vs Mo' Nz K2) as (v & Vv & Ev & Fv & _).
  apply same_value; auto; [|rewrite Vu; pose proof (bpow_gt_0 radix2 u); lra].
  rewrite Vu, Vv, Eu, Ev. do 3 f_equal. clear u v Vu Eu Fu Vv Ev Fv.
  (* the largest number is the same *)
  set (a := fun i => abs (f i)). rewrite !map_map. fold a.
  assert (Va : forall i, V (a i) = Rabs (V (f i))) by (intros i; apply abs_val).
  assert (Fa : forall i, In i it -> fin (a i)).
  { intros i I. apply abs_val. apply (proj1 (Forall_forall _ _) (moderate_fin _ Mo)).
  now apply in_map. }
  assert (FA : forall l, (forall i, In i l -> In i it) -> Forall fin (map a l)).
  { intros l L. apply Forall_map, Forall_forall. intros i I. now apply Fa, L. }
  assert (Sub : forall i, In i (seen it) -> In i it) by (intros i I; now apply seen_in).
  destruct (largest_val (map a it)) as [I1 L1]; [destruct it; easy | now apply FA |].
  destruct (largest_val (map a (seen it))) as [I2 L2]; [destruct (seen it); easy | now apply FA |].
  set (m1 := D.largest (map a it)) in *. set (m2 := D.largest (map a (seen it))) in *.
  assert (P2 : 0 < V m2).
  { destruct Nz as (x & I & N). apply in_map_iff in I as (i & <- & I). apply Rabs_pos_lt in N.
    pose proof (L2 (a i) (in_map a _ _ I)) as L. rewrite Va in L. lra. }
  assert (E12 : m1 = m2).
  { apply in_map_iff in I1 as (i1 & A1 & I1), I2 as (i2 & A2 & I2).
    apply same_value.
    - rewrite <- A1. now apply Fa.
    - rewrite <- A2. now apply Fa, Sub.
    - apply Rle_antisym.
      + destruct (hidden i1) eqn:H1.
        * rewrite <- A1, Va, (proj2 (Hid i1 I1 H1)), Rabs_R0. lra.
        * rewrite <- A1. apply L2, in_map. unfold seen. rewrite filter_In. now rewrite H1.
      + rewrite <- A2. apply L1, in_map. now apply Sub.
    - pose proof (L1 (a i2) (in_map a _ _ (Sub _ I2))) as L. rewrite A2 in L. lra. }
  unfold total_real, total_shift. fold m1 m2. rewrite E12, !map_map.
  set (sh := (D.power_below m2 * (0x1p-30 * D.ROUND))%float).
  (* zeros have the parts 0 and 0 *)
  assert (Mm : moderate m2).
  { apply in_map_iff in I2 as (i2 & A2 & I2). split; [rewrite <- A2; now apply Fa, Sub|].
    rewrite <- A2, Va, Rabs_Rabsolu. pose proof (proj1 (Forall_forall _ _) Mo' _ (in_map f _ _ I2))
      as [_ [Z | Bd]].
    - left. rewrite Z. apply Rabs_R0.
    - now right. }
  destruct Mm as [Fm [Z | Bm]]; [lra|]. rewrite Rabs_pos_eq in Bm by lra.
  destruct (power_below_pow2 m2 Fm) as (k & Vp & Fp & Kr & Kb).
  { split; [eapply Rle_trans; [|apply Bm] | eapply Rle_trans; [apply Bm|]]; apply up; lia. }
  assert (Kl : (-401 <= k <= 400)%Z).
  { split; [apply Z.lt_succ_r, (lt_bpow radix2); unfold Z.succ | apply (le_bpow radix2); lra].
    eapply Rle_lt_trans; [|apply Kb]. eapply Rle_trans; [|apply Bm]. apply up. lia. }
  set (cc := (0x1p-30 * D.ROUND)%float) in *.
  assert (Vc : V cc = 3 / 2 * pow2 22) by (unfold cc; value; simpl; lra).
  assert (T : pow2 k * (3 / 2 * pow2 22) = pow2 (k - 30) * (3 / 2 * pow2 52)).
  { replace k with (30 + (k - 30))%Z at 1 by lia. rewrite pow2_split by lia. simpl. lra. }
  destruct (mul_val (D.power_below m2) cc) as [Vs' Fs']; [exact Fp | unfold cc; finite | |].
  { rewrite Vp, Vc, T. pose proof (bpow_gt_0 radix2 (k - 30)). rewrite Rabs_pos_eq by (simpl; lra).
    apply Rle_trans with (pow2 (53 + (k - 30))); [|apply up; lia]. rewrite (pow2_split 53) by lia.
    simpl. lra. }
  fold sh in Vs', Fs'. rewrite Vp, Vc, T, grid_shift in Vs' by lia.
  assert (Zr : forall x w sft, nil x -> fin sft -> V sft = pow2 w * (3 / 2 * pow2 52) ->
    (-1074 <= w <= 900)%Z -> nil (D.round x sft)).
  { intros x w sft [Fx Zx] F1 V1 W. assert (Bx : Rabs (V x) <= pow2 (51 + w)) by (rewrite Zx,
    Rabs_R0; apply bpow_ge_0).
    destruct (round_val x sft w F1 Fx V1 W Bx) as (E & Fr & _).
    split; [exact Fr|]. rewrite E. rewrite Zx in *.
    apply round_to_fixed; [lia | exact Bx | apply on_grid_0]. }
  assert (Hz : forall i, In i it -> hidden i = true -> nil (a i)).
  { intros i I H. destruct (Hid i I H) as [_ Z0]. split; [now apply Fa|]. rewrite Va, Z0.
  apply Rabs_R0. }
  assert (Hh : forall i, In i it -> hidden i = true -> nil (D.round (a i) sh)).
  { intros i I H. apply (Zr _ (k - 30)%Z); auto. lia. }
  assert (Hl : forall i, In i it -> hidden i = true ->
    nil (D.round (a i - D.round (a i) sh) (sh * 0x1p-31))).
  { intros i I H. destruct (Hz i I H) as [Fx Zx], (Hh i I H) as [Fh Zh].
    assert (V31 : V 0x1p-31 = pow2 (-31)) by (value; simpl; lra).
    assert (T2 : pow2 (k - 30) * (3 / 2 * pow2 52) * pow2 (-31) = pow2 (k - 61) *
      (3 / 2 * pow2 52)).
    { replace (k - 61)%Z with (k - 30 + -31)%Z by lia. rewrite bpow_plus. ring. }
    destruct (mul_val sh 0x1p-31) as [V3 F3]; [exact Fs' | finite | |].
    { rewrite Vs', V31, T2. pose proof (bpow_gt_0 radix2 (k - 61)).
    rewrite Rabs_pos_eq by (simpl; lra).
      apply Rle_trans with (pow2 (53 + (k - 61))); [|apply up; lia]. rewrite (pow2_split 53) by lia.
      simpl. lra. }
    rewrite Vs', V31, T2, grid_shift in V3 by lia. apply (Zr _ (k - 61)%Z); auto; [|lia].
    destruct (sub_val (a i) (D.round (a i) sh) Fx Fh) as [V4 F4].
    { rewrite Zx, Zh, Rminus_0_r, Rabs_R0. apply bpow_ge_0. }
    split; [exact F4|]. rewrite V4, Zx, Zh, Rminus_0_r. unfold rnd. apply round_0, valid_rnd_N. }
  f_equal; f_equal; apply sum_seen; intros i I H; [now apply Hh | now apply Hl].
Qed.
End Grid.

Lemma no_longer_intro N {A} (xs : list A) : fin N -> V N <= pow2 52 -> INR (length xs) <= V N ->
  D.no_longer N xs = true.
Proof.
  intros FN L H. unfold D.no_longer. destruct (of_nat_val (length xs)) as [F Vn].
  rewrite leb_val by auto. apply Rle_bool_true. destruct Vn as [[-> _] | Vn]; [exact H|].
  exfalso. assert (P : pow2 52 < pow2 53) by (apply bpow_lt; lia).
  assert (Q : INR (length xs) <= pow2 52) by lra.
  (* then of_nat is exact: it is so up to 2^53 *)
  clear - Vn P Q. revert Vn Q. generalize (length xs) as n. intros n Vn Q.
  enough (E : V (D.of_nat n) = INR n) by lra. clear Vn. induction n as [|n IH]; [exact V_0|].
  rewrite S_INR in *. pose proof (pos_INR n). specialize (IH ltac:(lra)).
  destruct (of_nat_val (S n)) as [_ [[E _] | E]]; [rewrite E; apply S_INR|]. exfalso.
  cbn [D.of_nat] in E.
  assert (V1 : V 1 = 1) by (value; simpl; lra).
  destruct (of_nat_val n) as [Fn _]. destruct (add_val (D.of_nat n) 1 Fn) as [Va _]; [finite | |].
  { rewrite IH, V1, Rabs_pos_eq by lra. eapply Rle_trans; [exact Q | apply up; lia]. }
  rewrite Va, IH, V1 in E. pose proof (rnd_le (INR n + 1) 52 ltac:(lia)) as R.
  rewrite Rabs_pos_eq in R by lra. specialize (R Q). rewrite E, Rabs_pos_eq in R by apply bpow_ge_0.
  lra.
Qed.

Print Assumptions grid_seen.
