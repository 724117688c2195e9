(* flat: what flat arrays would save.  Rows of weights as lists of boxed floats, which the extracted
   decoder has: each in a box of its own, and, if they are bfloat16, equal ones in one box; and as
   flat arrays.  A dot product with each row.  For README; no part of the decoder. *)
let rows = 20000 and width = 576

type box = Box of float
let boxes =
  Array.init 65536 (fun i -> Box (Int32.float_of_bits (Int32.shift_left (Int32.of_int i) 16)))
(* numbers of ordinary sizes *)
let drawn _ = let Box x = boxes.(0x3C00 + Random.int 0x0400) in x
let own x = x +. Sys.opaque_identity 0.

let rec dot_lists acc xs ws = match xs, ws with
  | x :: xs, w :: ws -> dot_lists (acc +. x *. w) xs ws
  | _ -> acc
let dot_arrays (xs : float array) (ws : float array) =
  let acc = ref 0. in
  for i = 0 to Array.length ws - 1 do acc := !acc +. xs.(i) *. ws.(i) done;
  !acc

let live () = Gc.compact (); (Gc.stat ()).Gc.live_words * (Sys.word_size / 8)
let measure name make dot =
  let before = live () in
  let x = make () in
  let matrix = Array.init rows (fun _ -> make ()) in
  let weights = float (rows * width) in
  let bytes = float (live () - before) /. weights in
  let start = Sys.time () in
  let total = ref 0. in
  for _ = 1 to 10 do Array.iter (fun w -> total := !total +. dot x w) matrix done;
  let seconds = (Sys.time () -. start) /. 10. in
  Printf.printf "%s: %.1f bytes a weight, %.2f ns of CPU a product (sum %h)\n%!" name bytes
    (seconds /. weights *. 1e9) !total

let () =
  Random.init 1;
  measure "lists" (fun () -> List.map own (List.init width drawn)) (dot_lists 0.);
  Random.init 1;
  measure "lists, boxes shared" (fun () -> List.init width drawn) (dot_lists 0.);
  Random.init 1;
  measure "flat arrays" (fun () -> Array.init width drawn) dot_arrays
