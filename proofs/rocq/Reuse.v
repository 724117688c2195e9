(* Reuse.v -- A4 (reuse), for an arbitrary causal decoder: which entries of an old text's cache a
   new text may keep, and when computing some rows anew and keeping the others gives the new text's
   cache: if and only if every entry that changes is computed, at its layer and at all layers
   below.  Rests on nothing. *)
From Coq Require Import List Lia ZArith.
From Minikv Require Import Markov Needed.
Import ListNotations.

Section Reuse.
Context {Tok V KV Out : Type}.
Notation layer := (@layer V KV).
Variable emb : nat -> Tok -> V.
Variable Ls : list layer.
Notation stream := (stream emb Ls).
Notation exact toks := (caches Ls (mapi emb toks)).     (* the K/V of one pass: `snd (full toks)` *)

(* The entry of layer l and position p, where there is one. *)
Definition entry {X} (c : list (list X)) (l p : nat) : option X :=
  match nth_error c l with Some row => nth_error row p | None => None end.

Lemma caches_nth (ls : list layer) : forall hs l,
  nth_error (caches ls hs) l = option_map (fun L => kvs L (run (firstn l ls) hs)) (nth_error ls l).
Proof. induction ls as [|L ls IH]; intros hs [|l]; simpl; auto. Qed.

(** * A4: what may be kept as it is (T10 and T11, between two texts)
   Two texts of one length that agree from position a on.  At a layer above windows alone, rows from
   a + reach on are the same.  At layer 0 the reach is 0. *)
Theorem kept_by_reach ws l toks toks' a : Forall2 windowed ws (firstn l Ls) ->
  agree_from a toks toks' -> forall p, a + reach ws <= p ->
  entry (exact toks) l p = entry (exact toks') l p.
Proof.
  intros W [N H] p P. unfold entry. rewrite !caches_nth. destruct (nth_error Ls l) as [L|]; [|easy].
  cbn [option_map]. rewrite !projection.
  assert (A : agree_from a (mapi emb toks) (mapi emb toks')).
  { split; [now rewrite !mapi_length|]. intros q Q. now rewrite !mapi_nth, H. }
  destruct (receptive_field ws _ a W _ _ A) as [_ R]. now rewrite R.
Qed.
Corollary kept_at_layer_0 toks toks' a : agree_from a toks toks' -> forall p, a <= p ->
  entry (exact toks) 0 p = entry (exact toks') 0 p.
Proof. intros A p P. apply (kept_by_reach [] 0 _ _ a); simpl; auto. lia. Qed.

Theorem kept_before toks toks' n : firstn n toks = firstn n toks' -> forall l p, p < n ->
  entry (exact toks) l p = entry (exact toks') l p.
Proof.
  intros H l p P. unfold entry. rewrite !caches_nth. destruct (nth_error Ls l) as [L|]; [|easy].
  cbn [option_map]. pose proof (prefix_kv emb (fun h : V => h) Ls l L toks toks' n H) as E.
  apply (f_equal (fun row => nth_error row p)) in E. rewrite !nth_firstn in E by exact P. exact E.
Qed.

(** * A4: selective recomputation
   `sel l p`: is the row of position p computed at layer l?  A row that is left out at a layer is
   not there to be computed at the next.  Where it is, its K/V are projected anew; elsewhere the
   old text's entry is kept.  Attention reads the mixture. *)
Variable sel : nat -> nat -> bool.

Definition entries (L : layer) (rows : list (option V)) (old : list KV) : list KV :=
  mapi (fun p x => match fst x with Some h => kv L p h | None => snd x end) (combine rows old).
Definition next_rows (L : layer) (l : nat) (rows : list (option V)) (ks : list KV) :=
  mapi (fun p r => match r with
                   | Some h => if sel l p then Some (g L p h (firstn (S p) ks)) else None
                   | None => None end) rows.
Fixpoint mend (l : nat) (ls : list layer) (old : list (list KV)) (rows : list (option V))
  : list (list KV) * list (option V) :=
  match ls, old with
  | L :: ls, c :: old =>
      let ks := entries L rows c in
      let (caches, last) := mend (S l) ls old (next_rows L (S l) rows ks) in (ks :: caches, last)
  | _, _ => ([], rows)
  end.
Definition first_rows (toks : list Tok) : list (option V) :=
  mapi (fun p t => if sel 0 p then Some (emb p t) else None) toks.
Definition mended (old : list (list KV)) (toks : list Tok) := mend 0 Ls old (first_rows toks).

(* Kept: not computed at this layer, since some layer up to it left the row out. *)
Definition kept (l p : nat) : Prop := exists m, m <= l /\ sel m p = false.

(* Rows computed at layer l are those of the exact stream, and the others were left out. *)
Definition partial (l : nat) (rows : list (option V)) (hs : list V) : Prop :=
  length rows = length hs /\
  forall p h, nth_error hs p = Some h ->
    (nth_error rows p = Some (Some h) /\ forall m, m <= l -> sel m p = true)
    \/ (nth_error rows p = Some None /\ kept l p).

Lemma combine_nth {A B} (xs : list A) : forall (ys : list B) p, length xs = length ys ->
  nth_error (combine xs ys) p
  = match nth_error xs p, nth_error ys p with Some x, Some y => Some (x, y) | _, _ => None end.
Proof.
  induction xs as [|x xs IH]; intros [|y ys] [|p] H; simpl in *; try easy. apply IH. lia.
Qed.
(* The entries are exact if and only if the kept ones are. *)
Lemma entries_exact L l rows hs old : partial l rows hs -> length old = length hs ->
  (entries L rows old = kvs L hs
   <-> forall p, p < length hs -> kept l p -> nth_error old p = nth_error (kvs L hs) p).
Proof.
  intros [N P] O. split.
  - intros E p B K. rewrite <- E. unfold entries. rewrite mapi_nth, combine_nth by lia.
    destruct (nth_error hs p) as [h|] eqn:Hp; [|apply nth_error_None in Hp; lia].
    destruct (P p h Hp) as [(_ & S) | (-> & _)].
    { destruct K as (m & M & F). rewrite (S m M) in F. easy. }
    destruct (nth_error old p) eqn:Op; [reflexivity|]. apply nth_error_None in Op. lia.
  - intros K. apply same_list. intros p. unfold entries. rewrite mapi_nth, combine_nth by lia.
    destruct (nth_error hs p) as [h|] eqn:Hp.
    + assert (B : p < length hs) by (apply nth_error_Some; congruence).
      destruct (P p h Hp) as [(-> & _) | (-> & S)]; cbn [option_map fst snd].
      * destruct (nth_error old p) eqn:Op; [|apply nth_error_None in Op; lia].
        cbn [option_map fst]. rewrite projection, Hp. reflexivity.
      * rewrite <- K by auto. now destruct (nth_error old p).
    + rewrite projection, Hp. apply nth_error_None in Hp.
      rewrite (proj2 (nth_error_None rows p)) by lia. reflexivity.
Qed.

Lemma next_partial L l rows hs : partial l rows hs ->
  partial (S l) (next_rows L (S l) rows (kvs L hs)) (fwd L hs).
Proof.
  intros [N P]. split; [unfold next_rows; now rewrite mapi_length, fwd_length|]. intros p h E.
  unfold fwd, Markov.rows in E. rewrite mapi_nth in E. unfold next_rows. rewrite mapi_nth.
  destruct (nth_error hs p) as [h0|] eqn:H0; [|easy].
  cbn [option_map Nat.add] in *. injection E as <-.
  destruct (P p h0 H0) as [(-> & A) | (-> & m & M & F)]; cbn [option_map].
  - destruct (sel (S l) p) eqn:D; [left | right]; (split; [reflexivity|]).
    + intros m M. apply Nat.le_succ_r in M as [M | ->]; auto.
    + exists (S l). auto.
  - right. split; [reflexivity|]. exists m. auto.
Qed.

Lemma mend_exact ls : forall l old rows hs, partial l rows hs ->
  length old = length ls -> (forall c, In c old -> length c = length hs) ->
  (fst (mend l ls old rows) = caches ls hs
   <-> forall i p, i < length ls -> p < length hs -> kept (l + i) p ->
         entry old i p = entry (caches ls hs) i p).
Proof.
  induction ls as [|L ls IH]; intros l [|c old] rows hs P N O; simpl in N; try easy.
  cbn [mend caches]. pose proof (entries_exact L l rows hs c P (O c (or_introl eq_refl))) as E.
  destruct (mend (S l) ls old (next_rows L (S l) rows (entries L rows c))) as [cs last] eqn:M.
  assert (T : entries L rows c = kvs L hs ->
    (cs = caches ls (fwd L hs) <-> forall i p, i < length ls -> p < length hs ->
       kept (S l + i) p -> entry old i p = entry (caches ls (fwd L hs)) i p)).
  { intros K. rewrite K in M. specialize (IH (S l) old _ _ (next_partial L l rows hs P)).
    rewrite M in IH. cbn [fst] in IH. rewrite fwd_length in IH. apply IH; [lia|].
    intros c' I. apply O. now right. }
  split.
  - cbn [fst]. intros H. injection H as H1 H2. intros [|i] p I B K.
    + rewrite Nat.add_0_r in K. exact (proj1 E H1 p B K).
    + rewrite Nat.add_succ_r in K. exact (proj1 (T H1) H2 i p ltac:(simpl in I; lia) B K).
  - intros H. cbn [fst]. assert (H1 : entries L rows c = kvs L hs).
    { apply E. intros p B K. apply (H 0 p); simpl; [lia | exact B | now rewrite Nat.add_0_r]. }
    rewrite H1. f_equal. apply (T H1). intros i p I B K.
    apply (H (S i) p); simpl; [lia | exact B | now rewrite Nat.add_succ_r].
Qed.

Definition shaped (old : list (list KV)) (toks : list Tok) : Prop :=
  length old = length Ls /\ forall c, In c old -> length c = length toks.

(* It gives the exact cache if and only if each entry that it kept is the exact one: no two errors
   cancel, and of the entries that were kept no more need be known. *)
Theorem selective_recomputation old toks : shaped old toks ->
  (fst (mended old toks) = exact toks
   <-> forall l p, l < length Ls -> p < length toks -> kept l p ->
         entry old l p = entry (exact toks) l p).
Proof.
  intros [N O]. unfold mended.
  assert (P : partial 0 (first_rows toks) (mapi emb toks)).
  { split; [unfold first_rows; now rewrite !mapi_length|]. intros p h H. unfold first_rows.
    rewrite mapi_nth. rewrite mapi_nth in H. destruct (nth_error toks p) as [t|]; [|easy].
    cbn [option_map Nat.add] in *.
    injection H as <-. destruct (sel 0 p) eqn:D; [left | right]; (split; [reflexivity|]).
    - intros m M. apply Nat.le_0_r in M as ->. exact D.
    - exists 0. split; [lia | exact D]. }
  pose proof (mend_exact Ls 0 old _ _ P N) as H. rewrite mapi_length in H. exact (H O).
Qed.

(* The same, from the side of what changes: an entry of layer l that changes must be computed, at l
   and at every layer below it; and that is enough. *)
Corollary least_recomputation old toks : shaped old toks ->
  (forall a b : option KV, a = b \/ a <> b) ->
  (fst (mended old toks) = exact toks
   <-> forall l p m, l < length Ls -> p < length toks ->
         entry old l p <> entry (exact toks) l p -> m <= l -> sel m p = true).
Proof.
  intros Sh dec. rewrite selective_recomputation by exact Sh. split.
  - intros H l p m B P D M. destruct (sel m p) eqn:E; [reflexivity|]. exfalso. apply D.
    apply H; [exact B | exact P | now exists m].
  - intros H l p B P (m & M & F). destruct (dec (entry old l p) (entry (exact toks) l p)) as [|D];
      [assumption|]. rewrite (H l p m B P D M) in F. easy.
Qed.

Lemma caches_shaped toks toks' : length toks = length toks' -> shaped (exact toks) toks'.
Proof.
  intros N. split.
  - generalize (mapi emb toks). induction Ls; intros hs; simpl; auto.
  - assert (G : forall (ls : list layer) hs c, In c (caches ls hs) -> length c = length hs).
    { induction ls as [|L ls IH]; intros hs c I; simpl in I; [easy|]. destruct I as [<- | I].
      - apply mapi_length.
      - rewrite (IH _ _ I). apply fwd_length. }
    intros c I. rewrite (G _ _ _ I), mapi_length. exact N.
Qed.
End Reuse.

Section Uses.
Context {Tok V KV : Type}.
Variable emb : nat -> Tok -> V.
Variable Ls : list (@layer V KV).
Notation exact toks := (caches Ls (mapi emb toks)).

(* Everything anew from position n on; before it the texts are the same. *)
Theorem recompute_suffix sel toks toks' n : length toks = length toks' ->
  firstn n toks = firstn n toks' -> (forall l p, n <= p -> sel l p = true) ->
  fst (mended emb Ls sel (exact toks) toks') = exact toks'.
Proof.
  intros N H S. apply selective_recomputation; [now apply caches_shaped|].
  intros l p _ _ (m & _ & F). destruct (Nat.le_gt_cases n p) as [B | B].
  - rewrite S in F by exact B. easy.
  - now apply kept_before with (n := n).
Qed.

(* Layers with windows, and texts that differ before position a: rows up to the reach anew. *)
Theorem recompute_reach sel ws toks toks' a : Forall2 windowed ws Ls -> agree_from a toks toks' ->
  (forall l p, p < a + reach (firstn (length Ls) ws) -> sel l p = true) ->
  fst (mended emb Ls sel (exact toks) toks') = exact toks'.
Proof.
  intros W A S. apply selective_recomputation; [apply caches_shaped, A|].
  intros l p B _ (m & _ & F).
  assert (W' : Forall2 windowed (firstn l ws) (firstn l Ls)).
  { clear - W. revert l.
    induction W as [|w L ws' ls' H _ IH]; intros [|n]; simpl; constructor; auto. }
  apply (kept_by_reach emb Ls (firstn l ws) l toks toks' a W' A).
  destruct (Nat.le_gt_cases (a + reach (firstn (length Ls) ws)) p) as [G | G].
  - eapply Nat.le_trans; [|exact G]. apply Nat.add_le_mono_l.
    assert (R : forall n k (xs : list nat), n <= k -> reach (firstn n xs) <= reach (firstn k xs)).
    { induction n as [|n IH]; intros [|k] [|x xs] K; simpl; try lia.
      specialize (IH k xs ltac:(lia)). lia. }
    apply R. lia.
  - rewrite S in F by exact G. easy.
Qed.

(* All rows at every layer anew, whatever the old cache held. *)
Corollary recompute_all sel old toks : shaped Ls old toks -> (forall l p, sel l p = true) ->
  fst (mended emb Ls sel old toks) = exact toks.
Proof.
  intros Sh S. apply selective_recomputation; [exact Sh|]. intros l p _ _ (m & _ & F).
  rewrite S in F. easy.
Qed.
End Uses.

(** * A4: neither condition can be dropped
   Needed.v's decoder, each layer of which adds up what it sees.  The first token changes, rows 0
   and 1 are computed anew, row 2 is kept: at layer 1 its entry is the old text's. *)
Open Scope Z_scope.
Definition first_two (_ p : nat) : bool := Nat.ltb p 2.
Example kept_row_is_stale :
  let old := caches sum_model (mapi id_emb [1; 4; 2]) in
  old = [[1; 4; 2]; [1; 5; 7]] /\
  caches sum_model (mapi id_emb [3; 4; 2]) = [[3; 4; 2]; [3; 7; 9]] /\
  fst (mended id_emb sum_model first_two old [3; 4; 2]) = [[3; 4; 2]; [3; 7; 7]].
Proof. now vm_compute. Qed.
(* Rows 0 and 2 anew, row 1 kept.  Row 2 is exact at layer 1, since all of layer 0 is; one layer on
   it is not, since row 1 of layer 1 is the old text's. *)
Definition not_one (_ p : nat) : bool := negb (Nat.eqb p 1).
Example stale_neighbour :
  let model := [sum_layer; sum_layer; sum_layer] in
  let old := caches model (mapi id_emb [1; 4; 2]) in
  caches model (mapi id_emb [3; 4; 2]) = [[3; 4; 2]; [3; 7; 9]; [3; 10; 19]] /\
  fst (mended id_emb model not_one old [3; 4; 2]) = [[3; 4; 2]; [3; 5; 9]; [3; 6; 17]].
Proof. now vm_compute. Qed.
Close Scope Z_scope.

Print Assumptions kept_by_reach.
Print Assumptions kept_at_layer_0.
Print Assumptions kept_before.
Print Assumptions selective_recomputation.
Print Assumptions least_recomputation.
Print Assumptions recompute_suffix.
Print Assumptions recompute_reach.
Print Assumptions recompute_all.
Print Assumptions kept_row_is_stale.
Print Assumptions stale_neighbour.
