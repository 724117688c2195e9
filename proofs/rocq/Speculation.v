(* Speculation.v -- A3 (speculation), for an arbitrary causal decoder: whatever is drafted, also by
   an adversary and of any length, the tokens, the logits and the cache are those of one token at a
   time.

   The sampler is a function of all logits so far: greedy is one, and so is a draw from a generator
   that is seeded by position.  No arithmetic is assumed: equal means bit for bit.  Rests on
   nothing. *)
From Coq Require Import List Arith Lia.
From Minikv Require Import Markov Truncate.
Import ListNotations.

Section Speculation.
Context {Tok V KV Out : Type}.
Variable same : forall a b : Tok, {a = b} + {a <> b}.
Variable emb : nat -> Tok -> V.
Variable head : V -> Out.
Variable Ls : list (@layer V KV).
Notation outputs := (outputs emb head Ls).
Notation full := (full emb head Ls).
Notation decode_chunk := (decode_chunk emb head Ls).
Notation truncate n st := (full_step emb head Ls st (Truncate n)).
Notation state := (list Out * list (list KV))%type.

Variable sample : list Out -> Tok.

(* One token at a time. *)
Fixpoint greedy (n : nat) (toks : list Tok) : list Tok :=
  match n with 0 => toks | S n => greedy n (toks ++ [sample (outputs toks)]) end.
(* The same through a cache: a call of the decoder for each token. *)
Fixpoint stepwise (n : nat) (toks : list Tok) (st : state) : list Tok * state :=
  match n with
  | 0 => (toks, st)
  | S n => let t := sample (fst st) in stepwise n (toks ++ [t]) (decode_chunk st [t])
  end.

(* How many tokens of a draft are confirmed.  `outs` are the logits of the text before the draft,
   `rows` those of the draft's own positions. *)
Fixpoint accepted (outs rows : list Out) (draft : list Tok) {struct draft} : nat :=
  match draft, rows with
  | d :: draft, r :: rows =>
      if same d (sample outs) then S (accepted (outs ++ [r]) rows draft) else 0
  | _, _ => 0
  end.

(* One round: the next token, which the logits at hand name, and the draft, in one call; then the
   cache goes back to what was confirmed. *)
Definition round (draft : list Tok) (toks : list Tok) (st : state) : list Tok * state :=
  let t := sample (fst st) in
  let st' := decode_chunk st (t :: draft) in
  let n := S (length toks) in
  let a := accepted (firstn n (fst st')) (skipn n (fst st')) draft in
  (toks ++ t :: firstn a draft, truncate (n + a) st').

(* Any number of rounds; each has a source of its own for its draft, which sees text and state. *)
Fixpoint speculate (sources : list (list Tok -> state -> list Tok)) (toks : list Tok)
  (st : state) :=
  match sources with
  | [] => (toks, st)
  | source :: sources =>
      let (toks, st) := round (source toks st) toks st in speculate sources toks st
  end.

Lemma truncate_full n toks : truncate n (full toks) = full (firstn n toks).
Proof.
  unfold Markov.full. cbn [full_step]. now rewrite outputs_firstn, caches_firstn, mapi_firstn.
Qed.

(** * A3: what is confirmed is what one token at a time would have said *)
Lemma greedy_app n m : forall toks, greedy (n + m) toks = greedy m (greedy n toks).
Proof. induction n; intros toks; simpl; auto. Qed.
Lemma greedy_length n : forall toks, length (greedy n toks) = length toks + n.
Proof. induction n; intros toks; simpl; [lia|]. rewrite IHn, app_length. simpl. lia. Qed.

Lemma outputs_app toks more : exists rows, outputs (toks ++ more) = outputs toks ++ rows
  /\ length rows = length more.
Proof.
  exists (skipn (length toks) (outputs (toks ++ more))). split.
  - rewrite <- (firstn_skipn (length toks) (outputs (toks ++ more))) at 1. f_equal.
    rewrite outputs_firstn, firstn_app, firstn_all, Nat.sub_diag. simpl. now rewrite app_nil_r.
  - rewrite skipn_length, outputs_length, app_length. lia.
Qed.

Lemma accepted_greedy draft : forall toks rows, outputs (toks ++ draft) = outputs toks ++ rows ->
  let a := accepted (outputs toks) rows draft in
  toks ++ firstn a draft = greedy a toks
  /\ a <= length draft
  /\ (a = length draft \/ nth_error draft a <> Some (sample (outputs (greedy a toks)))).
Proof.
  induction draft as [|d draft IH]; intros toks rows E.
  - simpl. rewrite app_nil_r. split; [reflexivity|]. split; [lia | now left].
  - destruct rows as [|r rows].
    { exfalso. apply (f_equal (@length Out)) in E.
      rewrite app_nil_r, !outputs_length, app_length in E.
      simpl in E. lia. }
    cbn [accepted]. destruct (same d (sample (outputs toks))) as [-> | N].
    + assert (E1 : outputs (toks ++ [sample (outputs toks)]) = outputs toks ++ [r]).
      { destruct (outputs_app (toks ++ [sample (outputs toks)]) draft) as (rows' & E' & _).
        destruct (outputs_app toks [sample (outputs toks)]) as (r1 & E1 & L1).
        rewrite <- app_assoc in E'. simpl in E'. rewrite E, E1, <- app_assoc in E'.
        destruct r1 as [|r1 [|]]; try easy. apply app_inv_head in E'. simpl in E'.
        rewrite E1. congruence. }
      destruct (IH (toks ++ [sample (outputs toks)]) rows) as (A & B & C).
      { rewrite <- app_assoc. simpl. now rewrite E, E1, <- app_assoc. }
      rewrite E1 in A, B, C. cbv zeta in *.
      set (a := accepted (outputs toks ++ [r]) rows draft) in *.
      cbn [firstn greedy nth_error length].
      split; [|split; [lia|]].
      * rewrite <- A, <- app_assoc. reflexivity.
      * destruct C as [C | C]; [left; lia | right; exact C].
    + cbn [firstn greedy nth_error]. rewrite app_nil_r. repeat split; [lia|]. right. congruence.
Qed.

(** * A3: one round, and any number of them *)
Theorem round_is_greedy draft toks : exists a,
  round draft toks (full toks) = (greedy (S a) toks, full (greedy (S a) toks))
  /\ a <= length draft
  (* the longest prefix of the draft that one token at a time would have said *)
  /\ firstn a draft = skipn (S (length toks)) (greedy (S a) toks)
  /\ (a = length draft \/ nth_error draft a <> Some (sample (outputs (greedy (S a) toks)))).
Proof.
  unfold round. rewrite decode_chunk_full. cbv zeta. cbn [fst Markov.full].
  set (t := sample (outputs toks)).
  replace (toks ++ t :: draft) with ((toks ++ [t]) ++ draft) by now rewrite <- app_assoc.
  destruct (outputs_app (toks ++ [t]) draft) as (rows & E & L).
  assert (N : length (outputs (toks ++ [t])) = S (length toks)).
  { rewrite outputs_length, app_length. simpl. lia. }
  rewrite E, <- N, firstn_app, firstn_all, Nat.sub_diag, skipn_app, skipn_all, Nat.sub_diag.
  cbn [firstn skipn app]. rewrite app_nil_r.
  destruct (accepted_greedy draft (toks ++ [t]) rows E) as (A & B & C). cbv zeta in A, B, C.
  set (a := accepted (outputs (toks ++ [t])) rows draft) in *. exists a.
  change (greedy (S a) toks) with (greedy a (toks ++ [t])). rewrite <- A.
  split; [|split; [exact B | split]].
  - f_equal; [now rewrite <- app_assoc|].
    rewrite truncate_full. f_equal. rewrite N.
    replace (S (length toks) + a) with (length (toks ++ [t]) + a)
      by (rewrite app_length; simpl; lia).
    rewrite firstn_app_2. reflexivity.
  - rewrite N.
    replace (S (length toks)) with (length (toks ++ [t])) by (rewrite app_length; simpl; lia).
    now rewrite skipn_app, skipn_all, Nat.sub_diag.
  - rewrite A. exact C.
Qed.

Lemma stepwise_greedy n : forall toks,
  stepwise n toks (full toks) = (greedy n toks, full (greedy n toks)).
Proof.
  induction n as [|n IH]; intros toks; [reflexivity|]. cbn [stepwise greedy]. cbv zeta.
  change (fst (full toks)) with (outputs toks). now rewrite decode_chunk_full, IH.
Qed.

(* Same tokens, same logits at every position, same cache; no round makes less than one token. *)
Theorem speculation sources : forall toks, exists n, length sources <= n
  /\ speculate sources toks (full toks) = stepwise n toks (full toks)
  /\ speculate sources toks (full toks) = (greedy n toks, full (greedy n toks)).
Proof.
  assert (H : forall toks, exists n, length sources <= n
    /\ speculate sources toks (full toks) = (greedy n toks, full (greedy n toks))).
  { induction sources as [|source sources IH]; intros toks; cbn [speculate length]; [now exists 0|].
    destruct (round_is_greedy (source toks (full toks)) toks) as (a & E & _). rewrite E.
    destruct (IH (greedy (S a) toks)) as (n & K & F). exists (S a + n). split; [lia|].
    rewrite F. now rewrite greedy_app. }
  intros toks. destruct (H toks) as (n & K & E). exists n. now rewrite stepwise_greedy.
Qed.

Corollary speculation_logits sources toks : exists n,
  fst (snd (speculate sources toks (full toks))) = outputs (greedy n toks).
Proof. destruct (speculation sources toks) as (n & _ & _ & E). exists n. now rewrite E. Qed.

(* A perfect draft is accepted whole: k + 1 tokens for one call. *)
Lemma greedy_extends n : forall toks, exists more, greedy n toks = toks ++ more.
Proof.
  induction n as [|n IH]; intros toks; simpl; [exists []; now rewrite app_nil_r|].
  destruct (IH (toks ++ [sample (outputs toks)])) as (more & ->). rewrite <- app_assoc. eauto.
Qed.
Lemma greedy_nth n i toks : i < n ->
  nth_error (greedy n toks) (length toks + i) = Some (sample (outputs (greedy i toks))).
Proof.
  intros H. replace n with (i + S (n - S i)) by lia. rewrite greedy_app. cbn [greedy].
  destruct (greedy_extends (n - S i) (greedy i toks ++ [sample (outputs (greedy i toks))]))
    as (more & ->). rewrite <- app_assoc, <- greedy_length, nth_error_app2, Nat.sub_diag by lia.
  reflexivity.
Qed.
Theorem perfect_draft k toks : let draft := skipn (S (length toks)) (greedy (S k) toks) in
  round draft toks (full toks) = (greedy (S k) toks, full (greedy (S k) toks)).
Proof.
  intros draft. destruct (round_is_greedy draft toks) as (a & E & B & F & C).
  assert (D : length draft = k).
  { unfold draft. rewrite skipn_length, greedy_length. lia. }
  enough (a = k) by now subst a. destruct C as [C | C]; [congruence|].
  assert (a < k \/ a = k) as [K | ->] by lia; [|reflexivity]. exfalso. apply C.
  unfold draft. rewrite nth_skipn. replace (S (length toks) + a) with (length toks + S a) by lia.
  apply greedy_nth. lia.
Qed.
End Speculation.

(** * A3: a verifier that loses something is not enough
   The decoder adds up what it sees; its cache stores numbers rounded down to even ones, as a
   quantised cache does after the call.  So a call of two sees its own first row whole, and two
   calls of one do not. *)
Section Lossy.
Definition sum_step (outs cache : list nat) (toks : list nat) : list nat * list nat :=
  (outs ++ map (fun i => fold_right plus 0 (cache ++ firstn (S i) toks)) (seq 0 (length toks)),
   map (fun x => 2 * (x / 2)) (cache ++ toks)).
Definition parity (outs : list nat) : nat := last outs 0 mod 2.
Fixpoint lossy_greedy n (st : list nat * list nat) : list nat :=
  match n with
  | 0 => []
  | S n => let t := parity (fst st) in t :: lossy_greedy n (sum_step (fst st) (snd st) [t])
  end.
(* After the prompt [1] one token at a time says 1, 1, 1.  With the draft [1] after the first, which
   is confirmed, the third is 0. *)
Example lossy_verifier_differs :
  let start := sum_step [] [] [1] in
  lossy_greedy 3 start = [1; 1; 1] /\
  let st := sum_step (fst start) (snd start) [1; 1] in
  accepted Nat.eq_dec parity (firstn 2 (fst st)) (skipn 2 (fst st)) [1] = 1 /\
  parity (fst st) = 0.
Proof. now vm_compute. Qed.
End Lossy.

Print Assumptions round_is_greedy.
Print Assumptions speculation.
Print Assumptions speculation_logits.
Print Assumptions perfect_draft.
Print Assumptions lossy_verifier_differs.
