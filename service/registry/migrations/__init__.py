"""Every schema there ever was, in order. A migration is never edited once released."""
