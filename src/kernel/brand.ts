declare const brand: unique symbol;

/**
 * A nominal type: a `T` that only the file declaring the brand may mint (by a cast in that file, kept true by the
 * architecture test). Holding the value is the proof that the minting step ran.
 */
export type Brand<T, Name extends string> = T & { readonly [brand]: { readonly [N in Name]: true } };
