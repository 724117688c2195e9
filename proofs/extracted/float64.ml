(* What ExtrOCamlFloats names of Coq's kernel/float64.ml: IEEE 754's operations, as machine code. *)
type t = float
external of_float : float -> t = "%identity"
external add : t -> t -> t = "%addfloat"
external sub : t -> t -> t = "%subfloat"
external mul : t -> t -> t = "%mulfloat"
external div : t -> t -> t = "%divfloat"
external opp : t -> t = "%negfloat"
external abs : t -> t = "%absfloat"
external sqrt : t -> t = "caml_sqrt_float" "sqrt" [@@unboxed] [@@noalloc]
external eq : t -> t -> bool = "%equal"
external lt : t -> t -> bool = "%lessthan"
external le : t -> t -> bool = "%lessequal"
