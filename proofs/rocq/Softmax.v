(* Softmax.v -- all of attention's checks are true, and its row is finite: for a query of finite
   float32 numbers, and settled keys and values, as many as the context allows and at least one.
    The
   softmax's denominator is at least 1, since the largest score weighs exp(0) = 1. *)
From Coq Require Import ZArith Reals List Permutation Lia Lra Bool Floats.
From Flocq Require Import Core BinarySingleNaN PrimFloat.
From Minikv Require Import Exactness Grids Binary64 Values Machine Total GridOrder Narrow Rows
  Linear Attend Settle Hidden Calm NoRaise Range Norm Gate Checks.
From Minikv Require Decoder.
Import ListNotations.
Open Scope R_scope.
#[local] Existing Instances Binary64.Hprec Binary64.Hmax.
#[local] Instance valid_exp : Valid_exp fexp64 := FLT_exp_valid (-1074) 53.
#[local] Opaque one.

Section Query.
Variable M : D.machine.
Hypothesis O : orderly M.
Variable c : D.config.
Hypothesis C : calm_conf c.
Variable n : Z.
Hypotheses (Hn : (1 <= n <= 51)%Z) (Fpg : fin (D.pattern_grid c))
  (Vpg : V (D.pattern_grid c) = pow2 (- n)) (Vc : V (D.context c) <= pow2 (53 - n)).
Variables (q : list float) (ks vs : list (list float)).
Hypotheses (Sq : size 20 q) (Q : Forall single q) (Sk : forallb D.settled ks = true)
  (Sv : forallb D.settled vs = true) (Ne : ks <> [])
  (Ck : INR (length ks) <= V (D.context c)).

(* What `attend` names on its way. *)
Let q1 := map (fun x => x * (1 / sqrt (D.query_pre_attn_scalar c)))%float q.
Let q2 := map (D.to_grid (D.grid M D.bits29 q1)) q1.
Let scores := map (fun k => D.dot M q2 k + 0)%float ks.
Let e1 := map (fun s => D.exp (D.exp_table c) (s - D.largest scores)%float) scores.
Let e2 := map (D.to_grid (D.pattern_grid c)) e1.
Let den := D.sum M e2.
Let pattern := D.map2 (fun e p => e / den * p)%float e2 (map power_of vs).

Lemma short_keys : short ks.
Proof. unfold short. eapply Rle_trans; [exact Ck | apply C]. Qed.

Lemma query_checks : forallb D.wide q1 && D.no_longer D.longest q1 && forallb D.settled ks
  && forallb D.settled vs && D.no_longer (D.context c) ks = true.
Proof.
  pose proof (scaled_query c q C Q) as W. fold q1 in W. rewrite Sk, Sv.
  assert (H1 : forallb D.wide q1 = true).
  { apply forallb_forall. rewrite Forall_forall in W. intros x I. now apply W. }
  assert (H2 : D.no_longer D.longest q1 = true).
  { apply short_longest. unfold short, q1. now rewrite map_length. }
  assert (H3 : D.no_longer (D.context c) ks = true).
  { apply no_longer_intro; [apply C | | exact Ck]. eapply Rle_trans; [apply C | apply up; lia]. }
  now rewrite H1, H2, H3.
Qed.
Lemma query_moderate : Forall moderate q1 /\ short q1.
Proof.
  pose proof query_checks as H. rewrite !andb_true_iff in H.
  destruct H as ((((H1 & H2) & _) & _) & _).
  split; [exact (forallb_Forall _ _ _ wide_val H1) | now apply longest_short].
Qed.

Lemma score_val s : In s scores -> fin s /\ Rabs (V s) <= pow2 800.
Proof.
  destruct query_moderate as [Mq Kq]. destruct bits29_val as (Fs & Vs & Pl).
  assert (Q2 : l1_row 29 q2) by (apply (l1_val M 29); auto; lia).
  assert (L : sumabs (map V q2) <= 4 * sumabs (map V q1)) by (apply (l1_bound M 29); auto; lia).
  assert (U : sumabs (map V q1) <= pow2 20 * pow2 178).
  { eapply Rle_trans; [apply (sumabs_count (pow2 178)); [apply bpow_ge_0|]|].
    - apply Forall_map. eapply Forall_impl; [|exact (scaled_query c q C Q)].
      intros x (_ & _ & B). exact B.
    - rewrite map_length. apply Rmult_le_compat_r; [apply bpow_ge_0 | exact Kq]. }
  intros I. apply in_map_iff in I as (k & <- & I). rewrite forallb_forall in Sk.
  specialize (Sk k I).
  destruct (rows_fit 29 24 q2 k) as [u F]; [lia | exact Q2 | now apply settled_key|].
  destruct (dot_exact M u _ _ O F) as [Fd Vd].
  assert (B : Rabs (V (D.dot M q2 k)) <= pow2 500).
  { rewrite Vd. eapply Rle_trans; [apply (dot_bound (pow2 128)); [apply bpow_ge_0|]|].
    - destruct (settled_all k Sk) as [_ H]. apply Forall_forall. intros x J.
      destruct (tame_val x (proj1 (H x J))) as [Fx [Z | [_ B]]]; (split; [exact Fx|]).
      + rewrite Z, Rabs_R0. apply bpow_ge_0.
      + eapply Rle_trans; [exact B|]. change 128%Z with (24 + 104)%Z.
        rewrite pow2_split by lia. apply Rmult_le_compat_r; [apply bpow_ge_0 | apply IZR_le; lia].
    - apply Rle_trans with (pow2 128 * (pow2 2 * (pow2 20 * pow2 178))).
      + apply Rmult_le_compat_l; [apply bpow_ge_0|]. simpl (bpow radix2 2). lra.
      + rewrite <- !bpow_plus. apply up. lia. }
  destruct (add_val (D.dot M q2 k) 0 Fd) as [Va Fa]; [finite | |].
  { rewrite V_0, Rplus_0_r. small. }
  split; [exact Fa|]. rewrite Va, V_0, Rplus_0_r.
  eapply Rle_trans; [apply abs_near; [exact B | lia]|].
  apply up. lia.
Qed.

Lemma exponentials : forallb D.in_unit e1 = true.
Proof. apply softmax_in_unit; [apply C|]. apply Forall_forall. exact score_val. Qed.

Lemma grid_exponential x : In x e1 -> let y := D.to_grid (D.pattern_grid c) x in
  fin y /\ near (- n) (V y) (V x) /\ 0 <= V y <= 1.
Proof.
  intros I. pose proof exponentials as U. rewrite forallb_forall in U.
  destruct (unit_val x (U x I)) as [Fx Bx]. cbv zeta.
  assert (Ax : Rabs (V x) <= pow2 (n + - n)).
  { rewrite Rabs_pos_eq by lra. replace (n + - n)%Z with 0%Z by lia. simpl. lra. }
  destruct (to_grid_val (D.pattern_grid c) x (- n) Fpg Fx Vpg) as (_ & F' & N'); [lia | |].
  { eapply Rle_trans; [exact Ax | apply up; lia]. }
  split; [exact F'|]. split; [exact N'|].
  pose proof (near_bounded n (- n) _ _ ltac:(lia) N' Ax) as B.
  pose proof (near_nonneg _ _ _ N' (proj1 Bx)) as P. rewrite Rabs_pos_eq in B by exact P.
  replace (n + - n)%Z with 0%Z in B by lia. simpl in B. lra.
Qed.

(* The largest score weighs 1, so that the denominator is at least 1. *)
Lemma one_of_them : exists x, In x e1 /\ x = 1%float.
Proof.
  assert (Ns : scores <> []) by (unfold scores; destruct ks; easy).
  assert (Fs : Forall fin scores) by (apply Forall_forall; intros s I; now apply score_val).
  destruct (largest_val scores Ns Fs) as [Im _]. set (m := D.largest scores) in *.
  destruct (score_val m Im) as [Fm Bm].
  exists (D.exp (D.exp_table c) (m - m)%float). split.
  - unfold e1. now apply (in_map (fun s => D.exp (D.exp_table c) (s - m)%float)).
  - destruct (sub_val m m Fm Fm) as [Vd Fd].
    { rewrite Rminus_diag_eq, Rabs_R0 by reflexivity. apply bpow_ge_0. }
    apply exp_zero; [apply C | exact Fd|]. rewrite Vd, Rminus_diag_eq by reflexivity. apply rnd_0.
Qed.
Lemma weight_val e : In e e2 -> fin e /\ on_grid (- n) (V e) /\ 0 <= V e <= 1.
Proof.
  intros I. apply in_map_iff in I as (x & <- & I).
  destruct (grid_exponential x I) as (F & [G _] & B). now split.
Qed.
Lemma denominator : fin den /\ 1 <= V den <= pow2 20.
Proof.
  assert (Le : length e2 = length ks) by (unfold e2, e1, scores; now rewrite !map_length).
  assert (Fe : Forall fin e2) by (apply Forall_forall; intros e I; now apply weight_val).
  destruct (sum_val M (- n) e2 O) as [Fd Vd]; [lia | exact Fe | |].
  { apply (fits_count (53 - n) n (- n)); [lia | |].
    - rewrite map_length, Le. lra.
    - apply Forall_map, Forall_forall. intros e I. destruct (weight_val e I) as (_ & G & B).
      split; [exact G|]. rewrite Rabs_pos_eq by lra. replace (n + - n)%Z with 0%Z by lia. simpl.
      lra. }
  fold den in Fd, Vd. split; [exact Fd|]. rewrite Vd. split.
  - destruct one_of_them as (x & I & E).
    assert (One : V (D.to_grid (D.pattern_grid c) x) = 1).
    { rewrite E. destruct (to_grid_val (D.pattern_grid c) 1 (- n)) as (-> & _ & _);
        [exact Fpg | finite | exact Vpg | lia | |].
      - rewrite V_1, Rabs_R1. change 1 with (pow2 0). apply up. lia.
      - rewrite V_1. apply round_to_fixed; [lia | rewrite Rabs_R1; change 1 with (pow2 0);
          apply up; lia|].
        exists (2 ^ n)%Z. rewrite <- pow2_split by lia. replace (n + - n)%Z with 0%Z by lia.
        reflexivity. }
    rewrite <- One at 1. apply sum_ge_each; [|now apply in_map]. intros y J. now apply weight_val.
  - rewrite <- (Rmult_1_r (pow2 20)). eapply Rle_trans; [apply Rle_abs|].
    eapply Rle_trans; [apply (sum_le_count _ _ 1)|].
    + intros e I. destruct (weight_val e I) as (_ & _ & B). rewrite Rabs_pos_eq; lra.
    + apply Rmult_le_compat_r; [lra|]. rewrite Le. exact short_keys.
Qed.

Definition term (p : float * list float) : float := (fst p / den * power_of (snd p))%float.
Lemma pattern_terms : pattern = map term (combine e2 vs).
Proof. unfold pattern. apply (map2_combine (fun e p => e / den * p)%float). Qed.
Lemma term_val p : In p (combine e2 vs) -> D.wide (term p) = true /\ fin (term p) /\
  0 <= V (term p) <= pow2 (exponent (snd p)).
Proof.
  destruct p as [e v]. intros I. pose proof (in_combine_l _ _ _ _ I) as Ie.
  apply in_combine_r in I. destruct (weight_val e Ie) as (F & G & B).
  destruct denominator as [Fd Bd]. apply (weight_wide e den v n); auto.
  now apply (proj1 (forallb_forall _ _) Sv).
Qed.
Lemma pattern_checks : forallb D.wide pattern && D.no_longer D.longest pattern = true.
Proof.
  rewrite pattern_terms. apply andb_true_iff. split.
  - rewrite forallb_map. apply forallb_forall. intros p I. now apply term_val.
  - apply short_longest. unfold short. rewrite map_length, combine_length.
    eapply Rle_trans; [apply le_INR, Nat.le_min_l|]. unfold e2, e1, scores. rewrite !map_length.
    exact short_keys.
Qed.

Lemma denominator_check : (0 <? den)%float = true.
Proof.
  destruct denominator as [Fd Bd]. rewrite ltb_val, V_0 by (auto; finite).
  apply Rlt_bool_true. lra.
Qed.

(* No check fires: what `attend` computes is its last line. *)
Theorem attend_no_check : D.attend M c q ks vs =
  let g := D.grid M D.bits29 pattern in
  let weights := map (fun p => D.to_grid g (term p) * (1 / power_of (snd p)))%float (combine e2
    vs) in
  map (fun column => D.narrow (D.dot M weights column) + 0)%float (D.columns (D.head_dim c) vs).
Proof.
  unfold D.attend. cbv zeta. fold q1. rewrite query_checks. cbn [negb]. fold q2. fold scores.
  fold e1. rewrite exponentials. cbn [negb]. fold e2. fold den. rewrite denominator_check.
  cbn [negb].
  change (map (fun v => D.power_below (D.clip 0x1p-149 0x1.fffffep127 (D.top v))) vs)
    with (map power_of vs). fold pattern. rewrite pattern_checks. cbn [negb].
  rewrite <- (map2_combine2 (fun p w => D.to_grid (D.grid M D.bits29 pattern) p * (1 / w))%float
    term power_of e2 vs).
  now rewrite <- pattern_terms.
Qed.

Theorem attend_at_most b : (-149 <= b <= 100)%Z -> Forall (Forall (at_most (pow2 b))) vs ->
  length (D.attend M c q ks vs) = D.head_dim c /\
  Forall (at_most (pow2 (b + 23))) (D.attend M c q ks vs).
Proof.
  intros Hb Bv. rewrite attend_no_check. cbv zeta. split.
  { rewrite map_length. clear. generalize vs. induction (D.head_dim c); intros l; simpl; auto. }
  set (g := D.grid M D.bits29 pattern). set (L := combine e2 vs).
  assert (Sp : short pattern).
  { pose proof pattern_checks as H. apply andb_true_iff in H. now apply longest_short. }
  assert (Mp : Forall moderate pattern).
  { pose proof pattern_checks as H. apply andb_true_iff in H as [H _].
    exact (forallb_Forall _ _ _ wide_val H). }
  destruct bits29_val as (Fs & Vs & Pl).
  assert (R : l1_row 29 (map (D.to_grid g) pattern)) by (apply (l1_val M 29); auto; lia).
  assert (S4 : sumabs (map V (map (D.to_grid g) pattern)) <= 4 * sumabs (map V pattern))
    by (apply (l1_bound M 29); auto; lia).
  assert (Exp : forall p, In p L -> (exponent (snd p) <= b)%Z /\ D.settled (snd p) = true).
  { intros [e v] I. apply in_combine_r in I.
    pose proof (proj1 (forallb_forall _ _) Sv v I) as S. split; [|exact S].
    apply exponent_le; [exact S | lia |]. now apply (proj1 (Forall_forall _ _) Bv). }
  assert (S1 : sumabs (map V pattern) <= pow2 20 * pow2 b).
  { eapply Rle_trans; [apply (sumabs_count (pow2 b)); [apply bpow_ge_0|]|].
    - rewrite pattern_terms. apply Forall_map, Forall_map, Forall_forall. intros p I.
      destruct (term_val p I) as (_ & _ & B). rewrite Rabs_pos_eq by lra.
      eapply Rle_trans; [apply B | apply up; now apply Exp].
    - rewrite map_length. apply Rmult_le_compat_r; [apply bpow_ge_0 | exact Sp]. }
  apply Forall_map, Forall_forall. intros col I. destruct (columns_in _ _ _ I) as (f & Hf & ->).
  rewrite pattern_terms in R, S4. fold L in R, S4.
  destruct (weighted_fit g term f e2 vs Hf Sv R) as [u Fit]. fold L in Fit.
  destruct (dot_exact M u _ _ O Fit) as [Fd Vd].
  apply plus_zero, narrow_at_most; [apply bound_pow; lia|]. split; [exact Fd|]. rewrite Vd.
  unfold L at 1. rewrite pairs_combine. fold L. unfold bdot, dot, prods. rewrite !map_map.
  destruct R as (Fr & w & W & G & Bd). rewrite Forall_map in Fr, G. rewrite Forall_map in Fr.
  rewrite Forall_map, Forall_map in G.
  apply Rle_trans with (sum (map (fun p => 2 * Rabs (V (D.to_grid g (term p)))) L)).
  - apply sum_le_sumabs_map. intros p J. unfold real2. cbn [fst snd].
    destruct (Exp p J) as [_ S]. destruct (settled_value (snd p) S) as (_ & _ & _ & Bf).
    set (j := exponent (snd p)) in *.
    destruct (unscaled w (D.to_grid g (term p)) (snd p)) as (_ & _ & E); auto.
    + exact (proj1 (Forall_forall _ _) Fr p J).
    + exact (proj1 (Forall_forall _ _) G p J).
    + eapply Rle_trans; [|exact Bd].
      pose proof (each_below (fun p => D.to_grid g (term p)) L p J) as H. rewrite !map_map in *.
      exact H.
    + cbv zeta in E. fold j in E. rewrite <- E.
      fold (V (D.to_grid g (term p) * (1 / power_of (snd p)))%float).
      fold (V (f (snd p))). set (P := V (_ * _)%float). rewrite Rabs_mult.
      assert (Bf2 : Rabs (V (f (snd p))) <= 2 * pow2 j).
      { replace (2 * pow2 j) with (pow2 (24 + -23 + j)) by
          (replace (24 + -23 + j)%Z with (1 + j)%Z by lia;
          rewrite bpow_plus; simpl (bpow radix2 1); lra).
        destruct (Hf (snd p)) as [K | ->]; [now apply Bf|]. rewrite V_0, Rabs_R0. apply bpow_ge_0. }
      pose proof (Rabs_pos P). replace (2 * (Rabs P * pow2 j)) with (Rabs P * (2 * pow2 j)) by ring.
      now apply Rmult_le_compat_l.
  - assert (E : sum (map (fun p => 2 * Rabs (V (D.to_grid g (term p)))) L)
      = 2 * sumabs (map V (map (D.to_grid g) (map term L)))).
    { unfold sumabs. rewrite !map_map. clear. induction L as [|p l IH]; simpl; lra. }
    rewrite E. replace (b + 23)%Z with (3 + (20 + b))%Z by lia. rewrite !bpow_plus.
    rewrite pattern_terms in S1. fold L in S1. rewrite <- bpow_plus in S1 |- *.
    simpl (bpow radix2 3). lra.
Qed.
End Query.

Print Assumptions attend_no_check.
Print Assumptions attend_at_most.
