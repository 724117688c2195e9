(* Bounded.v -- T9 (bounded loss), over the real numbers.

   A cache policy that drops tokens (a window, H2O, SnapKV, TOVA, ...) attends to the tokens that
   are left, with softmax weights that again add up to 1.  If the dropped tokens had the softmax
   mass eps < 1, the attention output moves by at most 2 * eps * max |v|, and no smaller factor
   than 2 will do.  Such a policy has a bounded loss; T4's recomputation has none.

   A vector is the function of its coordinates; |.| is any norm, given by the three properties
   that the proof uses (the Euclidean and the maximum norm have them).  Rounding is not part of
   this theorem. *)
From Coq Require Import Reals List Lra.
Import ListNotations.
Open Scope R_scope.

Definition sum (l : list R) : R := fold_right Rplus 0 l.

(* Weights, each with a mark: kept (true) or dropped (false). *)
Definition weights (l : list (R * bool)) : list R := map fst l.
Definition dropped (l : list (R * bool)) : R :=                            (* eps *)
  sum (map (fun p : R * bool => if snd p then 0 else fst p) l).
Definition renormalised (l : list (R * bool)) : list R :=
  map (fun p : R * bool => if snd p then fst p / (1 - dropped l) else 0) l.

(** * T9: the softmax of what is kept is `renormalised` *)
Definition softmax (scores : list (R * bool)) : list (R * bool) :=
  map (fun p => (exp (fst p) / sum (map (fun q => exp (fst q)) scores), snd p)) scores.
Definition exp_kept (scores : list (R * bool)) : list R :=             (* a dropped score is -inf *)
  map (fun p : R * bool => if snd p then exp (fst p) else 0) scores.

Lemma sum_exp_pos (scores : list (R * bool)) : scores <> [] ->
  0 < sum (map (fun q => exp (fst q)) scores).
Proof.
  assert (N : forall l : list (R * bool), 0 <= sum (map (fun q => exp (fst q)) l)).
  { induction l as [|q l IH]; simpl; [lra|]. pose proof (exp_pos (fst q)). lra. }
  destruct scores as [|q l]; [easy|]. intros _. simpl.
  pose proof (N l). pose proof (exp_pos (fst q)). lra.
Qed.

Lemma softmax_sum scores : scores <> [] -> sum (weights (softmax scores)) = 1.
Proof.
  intros H. pose proof (sum_exp_pos _ H) as P. unfold weights, softmax.
  set (s := sum (map (fun q => exp (fst q)) scores)) in *.
  replace (sum _) with (sum (map (fun q => exp (fst q)) scores) / s);
    [unfold s in *; field; lra|].
  clearbody s. clear H. induction scores as [|q l IH]; simpl; [field; lra|].
  unfold sum in *. simpl in *. rewrite <- IH. field. lra.
Qed.

Theorem kept_softmax scores : 0 < sum (exp_kept scores) ->
  renormalised (softmax scores) = map (fun e => e / sum (exp_kept scores)) (exp_kept scores).
Proof.
  intros K. assert (H : scores <> []) by (intros ->; simpl in K; lra).
  pose proof (sum_exp_pos _ H) as P.
  assert (E : 1 - dropped (softmax scores)
              = sum (exp_kept scores) / sum (map (fun q => exp (fst q)) scores)).
  { rewrite <- (softmax_sum _ H). unfold dropped, weights, softmax.
    set (s := sum (map (fun q => exp (fst q)) scores)) in *. clearbody s. clear H K.
    induction scores as [|[x []] l IH]; unfold sum in *; simpl in *; [field| |]; lra. }
  unfold renormalised. rewrite E. set (k := sum (exp_kept scores)) in *. unfold softmax, exp_kept.
  set (s := sum (map (fun q => exp (fst q)) scores)) in *. clearbody s k.
  rewrite !map_map. apply map_ext. intros [x []]; simpl; field; lra.
Qed.

(** * T9: the weights move by 2 * eps in all *)
Fixpoint distance (ws ws' : list R) : R :=
  match ws, ws' with w :: ws, w' :: ws' => Rabs (w - w') + distance ws ws' | _, _ => 0 end.

Definition distribution (l : list (R * bool)) : Prop :=
  Forall (fun w => 0 <= w) (weights l) /\ sum (weights l) = 1.

Theorem moved_mass l : distribution l -> dropped l < 1 ->
  distance (weights l) (renormalised l) = 2 * dropped l.
Proof.
  intros [W S] E. unfold renormalised.
  assert (N : 0 <= dropped l).
  { unfold dropped. clear E S. induction l as [|[w b] l IH]; simpl in *; [lra|].
    inversion W; subst. specialize (IH H2). unfold sum in *. destruct b; lra. }
  set (e := dropped l) in *.
  (* kept weights grow by the factor 1/(1-e), dropped ones vanish *)
  replace (2 * e) with ((sum (weights l) - dropped l) * (e / (1 - e)) + dropped l)
    by (rewrite S; fold e; field; lra).
  clearbody e. clear S.
  induction l as [|[w b] l IH]; unfold dropped, sum in *; simpl in *; [ring|].
  inversion W as [|? ? Hw W']; subst. specialize (IH W'). rewrite IH. destruct b; simpl.
  - replace (w - w / (1 - e)) with (- (w * (e / (1 - e)))) by (field; lra).
    rewrite Rabs_Ropp, Rabs_pos_eq; [ring|]. apply Rmult_le_pos; [exact Hw|].
    apply Rmult_le_pos; [exact N|]. apply Rlt_le, Rinv_0_lt_compat. lra.
  - rewrite Rminus_0_r, Rabs_pos_eq by exact Hw. ring.
Qed.

(** * T9: hence so does the output *)
Section Vectors.
Definition vector := nat -> R.
Variable norm : vector -> R.
Hypothesis norm_ext : forall x y, (forall j, x j = y j) -> norm x = norm y.
Hypothesis norm_zero : norm (fun _ => 0) = 0.
Hypothesis norm_step : forall c v r, norm (fun j => c * v j + r j) <= Rabs c * norm v + norm r.

Fixpoint attend (ws : list R) (vs : list vector) : vector :=
  match ws, vs with
  | w :: ws, v :: vs => fun j => w * v j + attend ws vs j
  | _, _ => fun _ => 0
  end.

Lemma attend_distance M ws : forall ws' vs, length ws' = length ws -> length vs = length ws ->
  Forall (fun v => norm v <= M) vs ->
  norm (fun j => attend ws vs j - attend ws' vs j) <= distance ws ws' * M.
Proof.
  induction ws as [|w ws IH]; intros [|w' ws'] [|v vs] L' L F; try easy; simpl in *.
  - rewrite (norm_ext _ (fun _ => 0)) by (intros; ring). rewrite norm_zero. lra.
  - rewrite (norm_ext _ (fun j => (w - w') * v j + (attend ws vs j - attend ws' vs j)))
      by (intros; ring).
    eapply Rle_trans; [apply norm_step|]. inversion F as [|? ? Hv F']; subst.
    specialize (IH ws' vs ltac:(congruence) ltac:(congruence) F').
    pose proof (Rmult_le_compat_l _ _ _ (Rabs_pos (w - w')) Hv). lra.
Qed.

Theorem bounded_loss M l vs : distribution l -> dropped l < 1 -> length vs = length l ->
  Forall (fun v => norm v <= M) vs ->
  norm (fun j => attend (weights l) vs j - attend (renormalised l) vs j) <= 2 * dropped l * M.
Proof.
  intros D E L F. rewrite <- (moved_mass l D E).
  apply attend_distance; auto; unfold weights, renormalised; rewrite !map_length; auto.
Qed.
End Vectors.

(* The three properties have a model: the absolute value of any one coordinate. *)
Corollary bounded_coordinate j M l vs : distribution l -> dropped l < 1 -> length vs = length l ->
  Forall (fun v : vector => Rabs (v j) <= M) vs ->
  Rabs (attend (weights l) vs j - attend (renormalised l) vs j) <= 2 * dropped l * M.
Proof.
  apply (bounded_loss (fun v => Rabs (v j))).
  - now intros x y ->.
  - apply Rabs_R0.
  - intros c v r. rewrite <- Rabs_mult. apply Rabs_triang.
Qed.

(* The factor 2 is attained, for every eps: a kept value -1 and a dropped value 1. *)
Theorem bound_is_tight eps : 0 <= eps < 1 ->
  let l := [(1 - eps, true); (eps, false)] in let vs := [(fun _ => -1); (fun _ => 1)] in
  distribution l /\ dropped l = eps /\
  forall j, attend (weights l) vs j - attend (renormalised l) vs j = 2 * dropped l * 1.
Proof.
  intros H l vs. unfold distribution, weights, renormalised, dropped; simpl.
  repeat split; [| lra | ring | intros; field; lra].
  apply Forall_cons; [|apply Forall_cons; [|apply Forall_nil]]; lra.
Qed.

Print Assumptions kept_softmax.
Print Assumptions moved_mass.
Print Assumptions bounded_loss.
Print Assumptions bounded_coordinate.
Print Assumptions bound_is_tight.
