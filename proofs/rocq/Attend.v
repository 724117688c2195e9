(* Attend.v -- attention of one query, which is Exact.scores, softmax and weighted_sum: on any two
   machines, in whatever order they add, the same bits.  Where the decoder's checks fail, both
   answer nan; Softmax.v shows that they do not fail. *)
From Coq Require Import ZArith Reals List Permutation Lia Lra Bool Floats.
From Flocq Require Import Core BinarySingleNaN PrimFloat.
From Minikv Require Import Exactness Grids Binary64 Values Machine Total GridOrder Narrow Rows
  Linear.
From Minikv Require Decoder.
Import ListNotations.
Open Scope R_scope.
#[local] Existing Instances Binary64.Hprec Binary64.Hmax.
#[local] Instance valid_exp : Valid_exp fexp64 := FLT_exp_valid (-1074) 53.
#[local] Opaque one.

(** * Exact.scores, softmax and weighted_sum *)
Definition good (c : D.config) : Prop :=
  fin (D.rms_norm_eps c) /\ V (D.rms_norm_eps c) <> 0 /\
  fin (D.pattern_grid c) /\ fin (D.context c) /\
  exists n, (1 <= n <= 51)%Z /\ V (D.pattern_grid c) = pow2 (- n) /\
    V (D.context c) <= pow2 (53 - n).

Definition step_of (k : list float) : float := (D.power_below (D.top k) * 0x1p-23)%float.
Lemma settled_all k : D.settled k = true -> Forall moderate k /\
  forall x, In x k -> D.tame x = true /\ (D.to_grid (step_of k) x =? x)%float = true.
Proof.
  unfold D.settled. fold (step_of k). intros S. rewrite forallb_forall in S.
  assert (H : forall x, In x k -> D.tame x = true /\ (D.to_grid (step_of k) x =? x)%float = true).
  { intros x I. now apply andb_true_iff, S. }
  split; [|exact H]. apply Forall_forall. intros x I. now apply tame_moderate, H.
Qed.

Lemma settled_key k : D.settled k = true -> top_row 24 k.
Proof.
  intros S. destruct (settled_all k S) as [Mo H].
  destruct (top_val 0x1p-23 23 k) as (Fr & u & U & R);
    [finite | value; simpl; lra | now vm_compute | lia | exact Mo |].
  fold (step_of k) in Fr, R. pose proof (moderate_fin _ Mo) as Fi. split; [exact Fi|].
  exists u. split; [exact U|]. apply Forall_forall. intros x I.
  rewrite Forall_forall in R, Fr, Fi. specialize (R _ (in_map _ _ _ I)).
  specialize (Fr _ (in_map _ _ _ I)).
  now rewrite (eqb_eq _ _ Fr (Fi x I) (proj2 (H x I))) in R.
Qed.

Definition power_of (v : list float) : float :=
  D.power_below (D.clip 0x1p-149 0x1.fffffep127 (D.top v)).
Definition exponent (v : list float) : Z := (mag radix2 (V (power_of v)) - 1)%Z.
Lemma settled_value v : D.settled v = true ->
  V (power_of v) = pow2 (exponent v) /\ fin (power_of v) /\ (-149 <= exponent v <= 127)%Z /\
  forall x, In x v -> fin x /\ on_grid (-23 + exponent v) (V x) /\
    Rabs (V x) <= pow2 (24 + -23 + exponent v).
Proof.
  intros S. destruct (settled_all v S) as [Mo H]. pose proof (moderate_fin _ Mo) as Fi.
  enough (E : exists j, V (power_of v) = pow2 j /\ fin (power_of v) /\ (-149 <= j <= 127)%Z /\
    forall x, In x v -> fin x /\ on_grid (-23 + j) (V x) /\ Rabs (V x) <= pow2 (24 + -23 + j)).
  { destruct E as (j & E). replace (exponent v) with j; [exact E|]. unfold exponent.
    rewrite (proj1 E), mag_bpow. lia. }
  assert (Lit : power_of v = 0x1p-149%float -> (forall x, In x v -> V x = 0) -> exists j,
    V (power_of v) = pow2 j /\ fin (power_of v) /\ (-149 <= j <= 127)%Z /\
    forall x, In x v -> fin x /\ on_grid (-23 + j) (V x) /\ Rabs (V x) <= pow2 (24 + -23 + j)).
  { intros -> Z. exists (-149)%Z. split; [value; simpl; lra|]. split; [finite|]. split; [lia|].
    intros x I. split; [exact (proj1 (Forall_forall _ _) Fi x I)|]. rewrite (Z x I), Rabs_R0.
    split; [apply on_grid_0 | apply bpow_ge_0]. }
  destruct v as [|x0 v0] eqn:Ev; [apply Lit; [now vm_compute | easy]|]. rewrite <- Ev in *.
  assert (Ne : v <> []) by (now rewrite Ev).
  destruct (zeros_or v) as [Z | (x1 & I1 & N1)].
  { apply Lit; [|exact Z]. unfold power_of. rewrite top_zeros by auto. now vm_compute. }
  clear Lit. unfold power_of. set (t := D.top v).
  assert (Fa : Forall fin (map abs v)).
  { apply Forall_map. eapply Forall_impl; [|exact Fi]. intros x. apply abs_val. }
  destruct (largest_val (map abs v)) as [Im Lm]; [now rewrite Ev | exact Fa|].
  fold (D.top v) in Im, Lm. fold t in Im, Lm.
  assert (Le : forall x, In x v -> Rabs (V x) <= V t).
  { intros x I. destruct (abs_val x) as [<- _]. apply Lm. now apply in_map. }
  apply in_map_iff in Im as (a & Ea & Ia). destruct (H a Ia) as [Ta _].
  destruct (tame_val a Ta) as [Fin_a Ba]. destruct (abs_val a) as [Va Fabs]. rewrite Ea in Va, Fabs.
  specialize (Fabs Fin_a). rewrite <- Va in Ba. assert (Nt : V t <> 0).
  { pose proof (Le x1 I1). pose proof (Rabs_pos_lt _ N1). lra. }
  destruct Ba as [Z | Ba].
  { rewrite Va in Nt. destruct Nt. rewrite Z. apply Rabs_R0. }
  assert (Bt : pow2 (-149) <= V t <= IZR (2^24 - 1) * pow2 104) by exact Ba.
  assert (C : D.clip 0x1p-149 0x1.fffffep127 t = t).
  { assert (V149 : V 0x1p-149 = pow2 (-149)) by (value; simpl; lra).
    unfold D.clip. rewrite (ltb_val t), V149 by (auto; finite). rewrite Rlt_bool_false by lra.
    cbv zeta.
    rewrite ltb_val, V_max by (auto; finite). now rewrite Rlt_bool_false by lra. }
  rewrite C. destruct (power_below_pow2 t Fabs) as (k & Vp & Fp & _ & Kb).
  { split; [eapply Rle_trans; [|apply Bt]; apply up; lia|].
    eapply Rle_trans; [apply Bt|]. apply Rle_trans with (pow2 (24 + 104)); [|apply up; lia].
    rewrite pow2_split by lia. apply Rmult_le_compat_r; [apply bpow_ge_0 | apply IZR_le; lia]. }
  assert (Kr : (-149 <= k <= 127)%Z).
  { split; apply Z.lt_succ_r, (lt_bpow radix2); unfold Z.succ; [lra|].
    apply Rle_lt_trans with (V t); [lra|]. eapply Rle_lt_trans; [apply Bt|].
    change (127 + 1)%Z with (24 + 104)%Z. rewrite pow2_split by lia.
    apply Rmult_lt_compat_r; [apply bpow_gt_0 | apply IZR_lt; lia]. }
  exists k. split; [exact Vp|]. split; [exact Fp|]. split; [exact Kr|].
  assert (V23 : V 0x1p-23 = pow2 (-23)) by (value; simpl; lra).
  destruct (mul_val (D.power_below t) 0x1p-23) as [Vg Fg]; [exact Fp | finite | |].
  { rewrite Vp, V23, <- bpow_plus, Rabs_pos_eq by apply bpow_ge_0. apply up. lia. }
  rewrite Vp, V23, <- bpow_plus in Vg. unfold rnd in Vg.
  rewrite round_generic in Vg; [|apply valid_rnd_N | apply generic_format_bpow; unfold FLT_exp;
    lia].
  intros x I. pose proof (proj1 (Forall_forall _ _) Fi x I) as Fx. split; [exact Fx|].
  pose proof (Le x I) as Lx. destruct (H x I) as [_ Q]. unfold step_of in Q. fold t in Q.
  destruct (to_grid_val _ x (k + -23) Fg Fx Vg) as (_ & F' & [G' _]); [lia | |].
  { eapply Rle_trans; [exact Lx|]. apply Rle_trans with (pow2 (k + 1)); [lra | apply up; lia]. }
  rewrite (eqb_eq _ _ F' Fx Q) in G'. split.
  - now replace (-23 + k)%Z with (k + -23)%Z by lia.
  - replace (24 + -23 + k)%Z with (k + 1)%Z by lia. lra.
Qed.

Lemma div_val x y : fin x -> fin y -> V y <> 0 -> Rabs (V x / V y) <= pow2 1000 ->
  V (x / y)%float = rnd (V x / V y) /\ fin (x / y)%float.
Proof.
  intros Fx Fy Ny H. unfold V, fin, B in *. rewrite div_equiv.
  pose proof (Bdiv_correct 53%Z 1024%Z Binary64.Hprec Binary64.Hmax rne (Prim2B x) (Prim2B y) Ny) as
    C.
  rewrite no_over in C by exact H. destruct C as (C1 & C2 & _). split; [exact C1|].
  now rewrite <- Fx.
Qed.

Lemma columns_in n : forall vs col, In col (D.columns n vs) ->
  exists f : list float -> float, (forall v, In (f v) v \/ f v = 0%float) /\ col = map f vs.
Proof.
  induction n as [|n IH]; intros vs col I; [easy|]. destruct I as [<- | I].
  - exists (hd 0%float). split; [|reflexivity]. intros [|x v]; [now right | left; now left].
  - destruct (IH _ _ I) as (f & Hf & ->). exists (fun v => f (tl v)). rewrite map_map.
  split; [|reflexivity].
    intros [|x v]; [destruct (Hf []) as [[] | ?]; now right|].
    destruct (Hf v) as [Q | Q]; [left; now right | now right].
Qed.
Lemma map2_combine {A B C E} (f : A -> E -> C) (g : B -> E) xs : forall ys,
  D.map2 f xs (map g ys) = map (fun p => f (fst p) (g (snd p))) (combine xs ys).
Proof. induction xs as [|x xs IH]; intros [|y ys]; simpl; congruence. Qed.
Lemma map2_combine2 {A B C E} (h : A -> E -> C) (F : (A * B) -> A) (g : B ->
  E) (xs : list A) : forall ys,
  D.map2 h (map F (combine xs ys)) (map g ys) = map (fun p => h (F p) (g (snd p))) (combine xs ys).
Proof. induction xs as [|x xs IH]; intros [|y ys]; simpl; congruence. Qed.
Lemma pairs_combine {A} (P : (A * list float) -> float) (f : list float -> float) xs : forall vs,
  pairs (map P (combine xs vs)) (map f vs) = map (fun p => (B (P p),
    B (f (snd p)))) (combine xs vs).
Proof. unfold pairs. induction xs as [|x xs IH]; intros [|v vs]; simpl; congruence. Qed.

(* A number of the pattern's grid, divided by the power of its value: exactly. *)
Lemma unscaled u r v : fin r -> on_grid u (V r) -> (-500 <= u <= 500)%Z ->
  Rabs (V r) <= pow2 (29 + u) -> D.settled v = true ->
  let x := (r * (1 / power_of v))%float in
  fin x /\ on_grid (u - exponent v) (V x) /\ Rabs (V x) * pow2 (exponent v) = Rabs (V r).
Proof.
  intros Fr [n Hn] U Br S. cbv zeta. destruct (settled_value v S) as (Vp & Fp & J & _).
  set (j := exponent v) in *. pose proof (bpow_gt_0 radix2 j) as Pj.
  assert (V1 : V 1 = 1) by (value; simpl; lra).
  assert (Inv : 1 / pow2 j = pow2 (- j)) by (rewrite bpow_opp; field; lra).
  destruct (div_val 1 (power_of v)) as [Vd Fd]; [finite | exact Fp | lra | |].
  { rewrite V1, Vp, Inv, Rabs_pos_eq by apply bpow_ge_0. apply up. lia. }
  rewrite V1, Vp, Inv in Vd. unfold rnd in Vd.
  rewrite round_generic in Vd; [|apply valid_rnd_N | apply generic_format_bpow; unfold FLT_exp;
    lia].
  assert (Pr : V r * pow2 (- j) = IZR n * pow2 (u - j)).
  { rewrite Hn, Rmult_assoc, <- bpow_plus. reflexivity. }
  assert (Nn : (Z.abs n <= 2^53)%Z).
  { apply (Exactness.grid_bound u). rewrite <- Hn. eapply Rle_trans; [exact Br | apply up; lia]. }
  destruct (mul_val r (1 / power_of v) Fr Fd) as [Vm Fm].
  { rewrite Vd, Rabs_mult, (Rabs_pos_eq (pow2 (- j))) by apply bpow_ge_0.
    apply Rle_trans with (pow2 (29 + u) * pow2 (- j)).
    - apply Rmult_le_compat_r; [apply bpow_ge_0 | exact Br].
    - rewrite <- bpow_plus. apply up. lia. }
  rewrite Vd, Pr in Vm. unfold rnd in Vm.
  rewrite round_generic in Vm; [|apply valid_rnd_N | apply int_format; lia].
  split; [exact Fm|]. split; [rewrite Vm; now exists n|].
  rewrite Vm, <- Pr, Rabs_mult, (Rabs_pos_eq (pow2 (- j))) by apply bpow_ge_0.
  rewrite Rmult_assoc, <- bpow_plus. replace (- j + j)%Z with 0%Z by lia. simpl. ring.
Qed.
(* No number of a row is larger than the sum of all. *)
Lemma each_below {A} (F : A -> float) l p : In p l ->
  Rabs (V (F p)) <= sumabs (map V (map F l)).
Proof.
  unfold sumabs. rewrite !map_map. induction l as [|q l IH]; [easy|].
  intros I. cbn [map sum fold_right]. unfold sum in *.
  assert (P : 0 <= fold_right Rplus 0 (map (fun x => Rabs (V (F x))) l)).
  { clear. induction l as [|q l IH]; cbn [map fold_right]; [lra|].
    pose proof (Rabs_pos (V (F q))). lra. }
  pose proof (Rabs_pos (V (F q))). destruct I as [<- | I]; [lra|]. specialize (IH I). lra.
Qed.

Lemma weighted_fit g (F : float * list float -> float) (f : list float -> float) e vs :
  (forall v, In (f v) v \/ f v = 0%float) -> forallb D.settled vs = true ->
  l1_row 29 (map (D.to_grid g) (map F (combine e vs))) -> exists u,
  bfits u (pairs (map (fun p => D.to_grid g (F p) *
    (1 / power_of (snd p)))%float (combine e vs)) (map f vs)).
Proof.
  intros Hf S (Fr & u & U & G & Bd). rewrite pairs_combine. set (L := combine e vs) in *.
  set (P := fun p => (D.to_grid g (F p) * (1 / power_of (snd p)))%float).
  rewrite forallb_forall in S.
  assert (Set_ : forall p, In p L -> D.settled (snd p) = true).
  { intros [a v] I. apply S. exact (in_combine_r _ _ _ _ I). }
  rewrite !map_map in *. rewrite Forall_map in Fr, G. rewrite Forall_forall in Fr, G.
  assert (Ex : forall p, In p L -> fin (P p) /\ on_grid (u - exponent (snd p)) (V (P p)) /\
    Rabs (V (P p)) * pow2 (exponent (snd p)) = Rabs (V (D.to_grid g (F p)))).
  { intros p I. apply unscaled; auto. eapply Rle_trans; [|exact Bd].
    pose proof (each_below (fun p => D.to_grid g (F p)) L p I) as H. now rewrite map_map in H. }
  assert (Fv : forall p, In p L -> fin (f (snd p)) /\
    on_grid (-23 + exponent (snd p)) (V (f (snd p))) /\
    Rabs (V (f (snd p))) <= pow2 (24 + -23 + exponent (snd p))).
  { intros p I. destruct (settled_value _ (Set_ p I)) as (_ & _ & _ & Q).
    destruct (Hf (snd p)) as [H | ->]; [now apply Q|]. split; [finite|].
    rewrite V_0, Rabs_R0. split; [apply on_grid_0 | apply bpow_ge_0]. }
  exists (u + -23)%Z. split; [lia|]. split.
  - apply Forall_map, Forall_forall. intros p I. split; [now apply Ex | now apply Fv].
  - set (l := map (fun p => (exponent (snd p), (V (P p), V (f (snd p))))) L).
    replace (map real2 _) with (map snd l) by (unfold l; now rewrite !map_map).
    apply (fits_folded 29 24 u (-23) l); [lia | |].
    + apply Forall_map, Forall_forall. intros p I. split; [now apply Ex | now apply Fv].
    + unfold l. rewrite map_map. eapply Rle_trans; [|exact Bd]. unfold sumabs. rewrite map_map.
      apply Req_le. f_equal. apply map_ext_in. intros p I. now apply Ex.
Qed.

Lemma unit_val x : D.in_unit x = true -> fin x /\ 0 <= V x <= 1.
Proof.
  unfold D.in_unit. intros H. apply andb_true_iff in H as [H1 H2].
  assert (Fx : fin x).
  { rewrite leb_spec, <- !B2SF_Prim2B in H1, H2. unfold fin, B.
    change (B2SF (Prim2B 0)) with (B2SF (B 0)) in H1. rewrite B_0 in H1.
    assert (E1 : B2SF (Prim2B 1) = S754_finite false 4503599627370496 (-52)) by
      (rewrite B2SF_Prim2B; now vm_compute).
    rewrite E1 in H2. destruct (Prim2B x) as [?|[]| |[] ? ? ?]; easy. }
  assert (V1 : V 1 = 1) by (value; simpl; lra).
  rewrite leb_val, V_0 in H1 by (auto; finite). rewrite leb_val, V1 in H2 by (auto; finite).
  split; [exact Fx|]. destruct (Rle_bool_spec 0 (V x)), (Rle_bool_spec (V x) 1); easy.
Qed.
Section Two.
Variables M N : D.machine.
Hypotheses (OM : orderly M) (ON : orderly N).
Let grid29_same := grid29_same M N OM ON.
Let dot_same := dot_same M N OM ON.
Let sum_same := sum_same M N OM ON.

Theorem attend_same c q ks vs : good c -> D.attend M c q ks vs = D.attend N c q ks vs.
Proof.
  intros (_ & _ & Fpg & Fc & n & Hn & Vpg & Vc). unfold D.attend. cbv zeta.
  set (q1 := map _ q).
  destruct (forallb D.wide q1 && D.no_longer D.longest q1 && forallb D.settled ks
    && forallb D.settled vs && D.no_longer (D.context c) ks)%bool eqn:G; [|reflexivity].
  cbv [negb]. apply andb_true_iff in G as [G Ck]. apply andb_true_iff in G as [G Sv].
  apply andb_true_iff in G as [G Sk]. apply andb_true_iff in G as [Tq Kq].
  apply longest_short in Kq. pose proof (forallb_Forall _ _ _ wide_val Tq) as Mq.
  assert (Ck' : INR (length ks) <= pow2 (53 - n)).
  { eapply Rle_trans; [|exact Vc]. apply no_longer_val; auto.
  eapply Rle_trans; [exact Vc | apply up; lia]. }
  assert (E1 : map (D.to_grid (D.grid M D.bits29 q1)) q1 = map (D.to_grid (D.grid N D.bits29 q1))
    q1).
  { destruct q1 as [|a q1]; [reflexivity|]. now rewrite grid29_same. }
  rewrite <- E1. set (q2 := map _ q1).
  assert (Q2 : l1_row 29 q2).
  { destruct bits29_val as (Fs & Vs & Pl). apply (l1_val M 29); auto. lia. }
  assert (E2 : map (fun k => D.dot M q2 k + 0)%float ks = map (fun k => D.dot N q2 k + 0)%float ks).
  { apply map_ext_in. intros k I. rewrite forallb_forall in Sk.
    destruct (rows_fit 29 24 q2 k) as [u F]; [lia | exact Q2 | now apply settled_key, Sk|].
    destruct (dot_same u q2 k F) as (F1 & F2 & E12). now apply plus_zero_same. }
  rewrite <- E2. set (scores := map _ ks). set (e1 := map _ scores).
  destruct (forallb _ e1) eqn:G1; [|reflexivity].
  pose proof (forallb_Forall _ _ _ unit_val G1) as U1. rewrite Forall_forall in U1.
  set (e2 := map (D.to_grid (D.pattern_grid c)) e1).
  assert (Ev : forall x, In x e1 -> fin (D.to_grid (D.pattern_grid c) x) /\
    on_grid (- n) (V (D.to_grid (D.pattern_grid c) x)) /\
    Rabs (V (D.to_grid (D.pattern_grid c) x)) <= pow2 (n + - n)).
  { intros x I. destruct (U1 x I) as [Fx Bx].
    assert (Ax : Rabs (V x) <= pow2 0) by (rewrite Rabs_pos_eq; simpl; lra).
    destruct (to_grid_val (D.pattern_grid c) x (- n) Fpg Fx Vpg) as (_ & F' & N'); [lia | |].
    { eapply Rle_trans; [exact Ax | apply up; lia]. }
    split; [exact F'|]. split; [apply N'|]. apply (near_bounded n (- n) _ (V x));
      [lia | exact N' |].
    now replace (n + - n)%Z with 0%Z by lia. }
  destruct (sum_same (- n) e2) as (Fs1 & Fs2 & Es); [lia | | |].
  { apply Forall_map, Forall_forall. intros x I. now apply Ev. }
  { apply (fits_count (53 - n) n (- n)); [lia | |].
    - unfold e2, e1, scores. now rewrite !map_length.
    - apply Forall_map, Forall_map, Forall_forall. intros x I. split; now apply Ev. }
  rewrite !ltb_val, V_0, Es by (auto; finite).
  destruct (Rlt_bool_spec 0 (V (D.sum N e2))) as [Pos | _]; [|reflexivity].
  rewrite <- (same_value _ _ Fs1 Fs2 Es) by lra. set (den := D.sum M e2).
  fold power_of. change (map (fun v => D.power_below (D.clip 0x1p-149 0x1.fffffep127 (D.top v))) vs)
    with (map power_of vs).
  rewrite map2_combine. set (F := fun p : float *
    list float => (fst p / den * power_of (snd p))%float).
  destruct (forallb D.wide (map F (combine e2 vs)) && D.no_longer D.longest
    (map F (combine e2 vs)))%bool
    eqn:G2; [|reflexivity].
  apply andb_true_iff in G2 as [Tp Kp]. apply longest_short in Kp.
  pose proof (forallb_Forall _ _ _ wide_val Tp) as Mp. rewrite !map2_combine2.
  destruct (map F (combine e2 vs)) as [|p0 ps] eqn:Ep.
  - assert (Z : combine e2 vs = []) by (destruct (combine e2 vs); easy). rewrite Z. cbn [map].
    apply map_ext_in. intros col _.
    destruct (dot_same 0 [] col) as (F1 & F2 & E12); [|now apply narrow_plus_zero].
    split; [lia|]. split; [constructor|]. split; [constructor|]. unfold sumabs. simpl. lra.
  - rewrite <- Ep in *. rewrite (grid29_same (map F (combine e2 vs))) by (auto; congruence).
    apply map_ext_in. intros col I. destruct (columns_in _ _ _ I) as (f & Hf & ->).
    assert (R : l1_row 29 (map (D.to_grid (D.grid N D.bits29 (map F (combine e2 vs))))
      (map F (combine e2 vs)))).
    { destruct bits29_val as (Fs & Vs & Pl). apply (l1_val N 29); auto. lia. }
    destruct (weighted_fit _ F f e2 vs Hf Sv R) as [u Fit].
    destruct (dot_same u _ _ Fit) as (F1 & F2 & E12). now apply narrow_plus_zero.
Qed.

End Two.

Print Assumptions attend_same.
