(* Margin.v -- A6 (a token's certificate), over the real numbers: where the most likely token of a
   lossy run leads by more than twice what its logits are off, it is the exact run's. *)
From Coq Require Import Reals Lra.
From Flocq Require Import Raux.
Open Scope R_scope.

(* Logits are a function of the token.  Token i leads by more than m. *)
Definition leads (z : nat -> R) (i : nat) (m : R) : Prop := forall j, j <> i -> z j + m < z i.

(* Logits within b of the exact ones, but for a shift c that all share, which neither softmax nor
   argmax sees: then a lead of more than 2 b decides. *)
Theorem token_certificate z z' i b c : leads z' i (2 * b) ->
  (forall j, Rabs (z j - z' j - c) <= b) -> leads z i 0.
Proof.
  intros L D j N. pose proof (L j N). pose proof (Rabs_le_inv _ _ (D i)).
  pose proof (Rabs_le_inv _ _ (D j)). lra.
Qed.

(* Sharper, token by token: how far the difference of two logits moves. *)
Theorem pairwise_certificate z z' i b :
  (forall j, j <> i -> Rabs ((z i - z j) - (z' i - z' j)) <= b j) ->
  (forall j, j <> i -> z' j + b j < z' i) -> leads z i 0.
Proof. intros D L j N. pose proof (Rabs_le_inv _ _ (D j N)). pose proof (L j N). lra. Qed.

(* The 2 is attained: with a lead of 2 b itself the exact run may have a tie. *)
Theorem certificate_is_tight b : 0 <= b ->
  let z' := fun j => match j with 0%nat => b | _ => - b end in let z := fun _ : nat => 0 in
  (forall j, j <> 0%nat -> z' j + 2 * b <= z' 0%nat) /\ (forall j, Rabs (z j - z' j) <= b)
  /\ ~ leads z 0 0.
Proof.
  intros B z' z. repeat split.
  - intros [|j] N; [easy|]. unfold z'. lra.
  - intros [|j]; unfold z, z'; apply Rabs_le; lra.
  - intros L. pose proof (L 1%nat ltac:(easy)). unfold z in *. lra.
Qed.

Print Assumptions token_certificate.
Print Assumptions pairwise_certificate.
Print Assumptions certificate_is_tight.
